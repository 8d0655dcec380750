"""The format of exports: writes them, and reads them from untrusted files.

export.json              the model, the kinds of the columns, and for every part its rows and the SHA-256 of its two files
rows-00000.jsonl         one line per image: every column of the table but embedding, thumbnail and model; thumbnail_sha256
embeddings-00000.npy     (rows, dim) float32 in the order of the lines
thumbnails/00000/ID.jpg  their thumbnails

No pickle is used, sizes are bounded before anything is read (see `export_files`), and every value is checked.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tbps.config import Settings
from tbps.errors import DataError, ImageError, SettingsError
from tbps.gallery.lifecycle.export_files import ExportFiles, Put
from tbps.gallery.store.columns import MAX_COLUMNS, THUMBNAIL, fitted, json_text
from tbps.gallery.store.manifest import Manifest, now
from tbps.gallery.store.schema import EXPORT_COLUMNS, RESERVED, Kind, told_kind
from tbps.gallery.store.table import Table
from tbps.preprocess.image import open_image
from tbps.preprocess.metadata import parse_time

OnProgress = Callable[[int, int], None]

EXPORT_FILE = "export.json"
ROWS_PER_PART = 1000
MAX_TEXT = 2**20
_HASH = re.compile(r"[0-9a-f]{64}")
_MAX_PARTS = 100_000


class ExportPart(Settings):
    """One part: how many rows it has, and the SHA-256 of its lines and of its embeddings."""

    rows: int = Field(ge=1, le=ROWS_PER_PART)
    lines: str = Field(pattern=_HASH.pattern)
    embeddings: str = Field(pattern=_HASH.pattern)


class Export(Settings):
    """The content of export.json. encoder_name: for information only; no model is opened by this name.

    Version 1 was written by tbps 0.1 and has no columns of kind integer; it can still be read.
    """

    format: Literal["tbps-export"] = "tbps-export"
    version: Literal[1, 2] = 2
    encoder_name: str
    encoder_fingerprint: str
    dim: int = Field(ge=1, le=16_384)
    created: str
    columns: Mapping[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")], Kind] = Field(max_length=MAX_COLUMNS)
    parts: Sequence[ExportPart] = Field(max_length=_MAX_PARTS)

    @property
    def rows(self) -> int:
        """Rows of all parts together."""
        return sum(part.rows for part in self.parts)


def write_export(put: Put, manifest: Manifest, table: Table, progress: OnProgress) -> int:
    """Writes the files of an export; returns the number of images in it."""
    columns, total = table.extras(), len(table)
    rows = (row for batch in table.batches([*EXPORT_COLUMNS, *columns, "thumbnail", "embedding"]) for row in batch.to_pylist())
    parts: list[ExportPart] = []
    done = 0
    progress(0, total)
    while part := list(islice(rows, ROWS_PER_PART)):
        number = f"{len(parts):05d}"
        embeddings = np.array([row.pop("embedding") for row in part], np.float32)
        for row in part:
            put(f"thumbnails/{number}/{row['id']}.jpg", row["thumbnail"])
        lines = "".join(_line(row) + "\n" for row in part).encode()
        np.lib.format.write_array(buffer := io.BytesIO(), embeddings, version=(1, 0), allow_pickle=False)
        put(f"rows-{number}.jsonl", lines)
        put(f"embeddings-{number}.npy", buffer.getvalue())
        parts.append(ExportPart(rows=len(part), lines=_sha256(lines), embeddings=_sha256(buffer.getvalue())))
        progress(done := done + len(part), total)
    facts = {"encoder_name": manifest.encoder_name, "encoder_fingerprint": manifest.encoder_fingerprint, "dim": manifest.dim}
    exported = Export.parse({**facts, "created": now(), "columns": columns, "parts": parts})
    put(EXPORT_FILE, (exported.model_dump_json(indent=1) + "\n").encode())
    return done


def _line(row: dict[str, Any]) -> str:
    thumbnail, captured = row.pop("thumbnail"), row["captured_at"]
    line = {
        **row,
        "captured_at": None if captured is None else captured.isoformat(),
        "attributes": json.loads(row["attributes"], parse_constant=lambda _: None),  # NaN, which version 0.1 wrote
        "thumbnail_sha256": _sha256(thumbnail),
    }
    return json.dumps(line, ensure_ascii=False)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_export(files: ExportFiles) -> Export:
    """Reads export.json. Raises DataError when it is damaged or of another version."""
    try:
        values = json.loads(files.read(EXPORT_FILE))
        if not isinstance(values, dict):
            raise ValueError("no JSON object")
        exported = Export.parse(values)
    except (ValueError, RecursionError, SettingsError) as error:
        raise DataError(f"{EXPORT_FILE} of {files.place} is damaged or of another version ({error})") from error
    if taken := sorted(RESERVED & exported.columns.keys()):
        raise DataError(f"{EXPORT_FILE} of {files.place} names the column {taken[0]!r}, which every gallery has")
    return exported


def read_parts(files: ExportFiles, exported: Export) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
    """Reads and checks each part: its rows as the table stores them, and their embeddings. Raises DataError on damage."""
    for number, part in enumerate(exported.parts):
        names = f"rows-{number:05d}.jsonl", f"embeddings-{number:05d}.npy"
        lines, vectors = files.read(names[0]), files.read(names[1])
        for name, content, digest in zip(names, (lines, vectors), (part.lines, part.embeddings), strict=True):
            if _sha256(content) != digest:
                raise DataError(f"export {files.place} is damaged: {name} has another SHA-256 than {EXPORT_FILE} says")
        texts = lines.splitlines()
        if len(texts) != part.rows:
            raise DataError(f"{names[0]} of {files.place} has {len(texts):,} lines, not {part.rows:,}")
        try:
            embeddings = _vectors(vectors, (part.rows, exported.dim))
            rows = [_row(text, exported.columns) for text in texts]
            for row in rows:
                row["thumbnail"] = _thumbnail(files.read(f"thumbnails/{number:05d}/{row['id']}.jpg"), row.pop("thumbnail_sha256"))
        except (ValueError, RecursionError, ImageError) as error:
            raise DataError(f"part {number} of export {files.place}: {error}") from error
        yield rows, embeddings


def _vectors(content: bytes, shape: tuple[int, int]) -> np.ndarray:
    buffer = io.BytesIO(content)
    if np.lib.format.read_magic(buffer) != (1, 0):
        raise ValueError("embeddings of an unknown version of .npy")
    found, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    size = 4 * shape[0] * shape[1]
    if found != shape or fortran or dtype != np.dtype("<f4") or len(content) - buffer.tell() != size:
        raise ValueError(f"embeddings of shape {found} and kind {dtype} instead of {shape} float32")
    embeddings = np.frombuffer(content, "<f4", offset=buffer.tell()).reshape(shape)
    if not np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3):
        raise ValueError("embeddings that are not unit vectors")
    return embeddings


def _row(line: bytes, columns: Mapping[str, Kind]) -> dict[str, Any]:
    """Parses a line to a row as the table stores it, with thumbnail_sha256. Raises ValueError on any wrong value."""
    row = json.loads(line)
    if not isinstance(row, dict) or row.keys() != {*EXPORT_COLUMNS, "thumbnail_sha256", *columns}:
        raise ValueError("a line does not have the columns that the export names")
    for name in ("content_hash", "thumbnail_sha256"):
        if not isinstance(row[name], str) or not _HASH.fullmatch(row[name]):
            raise ValueError(f"{name} {str(row[name])[:80]!r} is not a SHA-256")
    if row["id"] != row["content_hash"][:24]:
        raise ValueError(f"id {str(row['id'])[:80]!r} does not belong to its content hash")
    if not isinstance(row["attributes"], dict):
        raise ValueError("attributes that are not a JSON object")
    row["attributes"] = json_text(row["attributes"])
    texts = ["source", "root", "attributes", *(name for name, kind in columns.items() if kind == "text"), "identity", "camera"]
    for name in texts:
        _check_text(name, row[name], required=name in texts[:3])
    if row["captured_at"] is not None and (moment := parse_time(row["captured_at"])) is None:
        raise ValueError(f"captured_at {str(row['captured_at'])[:80]!r} is not a time")
    row["captured_at"] = None if row["captured_at"] is None else moment
    for name, kind in columns.items():
        value = row[name]
        if value is not None and kind != "text" and not _is_of(kind, value):
            raise ValueError(f"column {name!r} holds a value that is not a {told_kind(kind)}")
    return row


def _check_text(name: str, value: Any, required: bool) -> None:
    if value is None and not required:
        return
    if not isinstance(value, str) or len(value) > MAX_TEXT or "\0" in value:
        raise ValueError(f"{name} is not a text of at most {MAX_TEXT:,} characters")
    value.encode()  # UnicodeEncodeError is a ValueError


def _is_of(kind: Kind, value: Any) -> bool:
    """Whether a value has the type of a column's kind: int for whole numbers, float for others."""
    expected = {"truth": bool, "integer": int, "number": float}[kind]
    return type(value) is expected and fitted(value, kind) is not None


def _thumbnail(content: bytes, digest: str) -> bytes:
    if _sha256(content) != digest:
        raise ValueError("a thumbnail has another SHA-256 than its line says")
    size = open_image(content).size
    if not content.startswith(b"\xff\xd8\xff") or size[0] > THUMBNAIL[0] or size[1] > THUMBNAIL[1]:
        raise ValueError(f"a thumbnail is not a JPEG of at most {THUMBNAIL[0]} x {THUMBNAIL[1]} pixels")
    return content
