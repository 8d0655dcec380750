"""A gallery in a folder or tar archive of its own, to keep or to carry elsewhere, and back into a gallery.

export.json              model, kinds of the columns, and for every part its rows and the SHA-256 of its two files
rows-00000.jsonl         one line an image: every column of the table but embedding, thumbnail and model; thumbnail_sha256
embeddings-00000.npy     (rows, dim) float32 in the order of the lines
thumbnails/00000/ID.jpg  their thumbnails

Whoever made an archive is not trusted. Nothing is unpacked to disk; names other than these, links and packed archives are refused;
what is read is bounded before it is read; there is no pickle; every value is checked, and all of it before the first row is added.
"""

import hashlib
import io
import json
import re
import shutil
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from tbps.config import Settings
from tbps.errors import DataError, GalleryError, ImageError, MixedModelsError, SettingsError
from tbps.gallery.encoder import Encoder
from tbps.gallery.lifecycle.export_files import Source, open_source
from tbps.gallery.store.columns import MAX_COLUMNS, THUMBNAIL, fitted, json_text, unfit_note
from tbps.gallery.store.layout import table_of
from tbps.gallery.store.lock import PATIENCE
from tbps.gallery.store.manifest import MANIFEST_FILE, Manifest, manifest_of, now, read_manifest, recorded, write_manifest
from tbps.gallery.store.schema import EXPORT_COLUMNS, RESERVED, Kind, told_kind
from tbps.gallery.store.table import Table
from tbps.gallery.store.writing import writing
from tbps.preprocess.image import open_image
from tbps.preprocess.metadata import parse_time
from tbps.storage import atomic_path, make_folder, writing_to

OnProgress = Callable[[int, int], None]
Put = Callable[[str, bytes], None]

EXPORT_FILE = "export.json"
ROWS_A_PART = 1000
MAX_TEXT = 2**20
_HASH = re.compile(r"[0-9a-f]{64}")
_NUMBER_OF_PARTS = 100_000


class Part(Settings):
    """Rows of one part, and the SHA-256 of its lines and of its embeddings."""

    rows: int = Field(ge=1, le=ROWS_A_PART)
    lines: str = Field(pattern=_HASH.pattern)
    embeddings: str = Field(pattern=_HASH.pattern)


class Export(Settings):
    """What export.json says. encoder_name is for people to read: nothing is opened by it.

    Version 1, of tbps 0.1, has no columns of kind integer; it is read as well.
    """

    format: Literal["tbps-export"] = "tbps-export"
    version: Literal[1, 2] = 2
    encoder_name: str
    encoder_fingerprint: str
    dim: int = Field(ge=1, le=16_384)
    created: str
    columns: Mapping[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")], Kind] = Field(max_length=MAX_COLUMNS)
    parts: Sequence[Part] = Field(max_length=_NUMBER_OF_PARTS)

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class TransferReport:
    """images: written, or added; skipped_existing: in the gallery already, by content; notes: remarks on columns."""

    images: int
    skipped_existing: int
    notes: tuple[str, ...]
    seconds: float


def export(folder: Path, target: Path, on_progress: OnProgress | None = None, patience: float = PATIENCE) -> TransferReport:
    """Writes a gallery to a new folder, or to a new archive when `target` ends in .tar; whoever writes to it waits meanwhile.

    An export is a copy outside the gallery: what is forgotten later stays in it. It does not say which scenes and videos were
    looked at: indexed where it is imported, they are looked at again, and people who were forgotten here come back there.
    Raises SettingsError when something stands at `target`, GalleryError on an empty gallery, StorageError on a full disk.
    """
    started = time.monotonic()
    recorded(folder)
    if target.exists():
        raise SettingsError(f"{target} exists already; name a new folder or a new .tar file")
    with writing(folder, patience):
        manifest, table = recorded(folder), table_of(folder / MANIFEST_FILE)
        if table is None or not len(table):
            raise GalleryError(f"gallery {folder} is empty; there is nothing to export")
        with _begun(target) as put:
            images = _write(put, manifest, table, on_progress or (lambda done, total: None))
    return TransferReport(images, 0, (), time.monotonic() - started)


def import_export(
    folder: Path,
    place: Path,
    model: Encoder | None = None,
    on_progress: OnProgress | None = None,
    patience: float = PATIENCE,
) -> TransferReport:
    """Adds the images of an export to a gallery of the same model; `model` is needed where there is no gallery yet.

    The export is gone through twice: everything is checked before the first image is added. Killed at any moment, the gallery holds
    every image that `on_progress` counted, and the same call adds the rest.
    Raises DataError on an export that is damaged, unfinished or not what it should be, MixedModelsError on another model's.
    """
    started, progress = time.monotonic(), on_progress or (lambda done, total: None)
    source = open_source(place)
    exported = _read_export(source)
    manifest = read_manifest(folder) or (None if model is None else manifest_of(model))
    if manifest is None:
        raise SettingsError(f"there is no gallery at {folder} yet; say with --model which model it is to be asked with")
    _check_same_model(folder, manifest, exported)
    for _ in _parts(source, exported):
        pass
    added = skipped = 0
    progress(0, exported.rows)
    left_out: set[str] = set()
    lost: Counter[str] = Counter()
    for rows, embeddings in _parts(source, exported):
        with writing(folder, patience):
            table = _table(folder, manifest)
            left_out |= _fit_columns(rows, table, exported.columns, lost)
            present = table.present([row["id"] for row in rows])
            kept = [at for at, row in enumerate(rows) if row["id"] not in present]
            if kept:
                given = [{**rows[at], "model": manifest.encoder_fingerprint} for at in kept]
                table.append(given, embeddings[kept])
        added, skipped = added + len(kept), skipped + len(present)
        progress(added + skipped, exported.rows)
    with writing(folder, patience):
        table = _table(folder, manifest)
        table.tidy()
        kinds = table.extras()
    notes = [f"column {name!r} is kept in attributes but cannot be filtered on here" for name in sorted(left_out)]
    notes += [unfit_note(name, kinds[name], count) for name, count in sorted(lost.items()) if count and name in kinds]
    return TransferReport(added, skipped, tuple(notes), time.monotonic() - started)


@contextmanager
def _begun(target: Path) -> Iterator[Put]:
    """Takes the files of an export, which gets its name when it is whole."""
    if target.suffix == ".tar":
        with atomic_path(target) as file, tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:

            def add(name: str, content: bytes) -> None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

            yield add
        return
    begun = target.with_name(f".{target.name}.part")
    shutil.rmtree(begun, ignore_errors=True)
    make_folder(begun)

    def write(name: str, content: bytes) -> None:
        (begun / name).parent.mkdir(parents=True, exist_ok=True)
        (begun / name).write_bytes(content)

    try:
        with writing_to(target.parent):
            yield write
            begun.rename(target)
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _write(put: Put, manifest: Manifest, table: Table, progress: OnProgress) -> int:
    columns, total = table.extras(), len(table)
    rows = (row for batch in table.batches([*EXPORT_COLUMNS, *columns, "thumbnail", "embedding"]) for row in batch.to_pylist())
    parts: list[Part] = []
    done = 0
    progress(0, total)
    while part := list(islice(rows, ROWS_A_PART)):
        number = f"{len(parts):05d}"
        embeddings = np.array([row.pop("embedding") for row in part], np.float32)
        for row in part:
            put(f"thumbnails/{number}/{row['id']}.jpg", row["thumbnail"])
        lines = "".join(_line(row) + "\n" for row in part).encode()
        np.lib.format.write_array(buffer := io.BytesIO(), embeddings, version=(1, 0), allow_pickle=False)
        put(f"rows-{number}.jsonl", lines)
        put(f"embeddings-{number}.npy", buffer.getvalue())
        parts.append(Part(rows=len(part), lines=_sha256(lines), embeddings=_sha256(buffer.getvalue())))
        progress(done := done + len(part), total)
    facts = {"encoder_name": manifest.encoder_name, "encoder_fingerprint": manifest.encoder_fingerprint, "dim": manifest.dim}
    exported = Export.parse({**facts, "created": now(), "columns": columns, "parts": parts})
    put(EXPORT_FILE, (exported.model_dump_json(indent=1) + "\n").encode())
    return done


def _line(row: dict[str, Any]) -> str:
    thumbnail, captured = row.pop("thumbnail"), row["captured_at"]
    told = {
        **row,
        "captured_at": None if captured is None else captured.isoformat(),
        "attributes": json.loads(row["attributes"], parse_constant=lambda _: None),  # NaN, which version 0.1 wrote
        "thumbnail_sha256": _sha256(thumbnail),
    }
    return json.dumps(told, ensure_ascii=False)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_export(source: Source) -> Export:
    try:
        values = json.loads(source.read(EXPORT_FILE))
        if not isinstance(values, dict):
            raise ValueError("no JSON object")
        exported = Export.parse(values)
    except (ValueError, RecursionError, SettingsError) as error:
        raise DataError(f"{EXPORT_FILE} of {source.place} is damaged or of another version ({error})") from error
    if taken := sorted(RESERVED & exported.columns.keys()):
        raise DataError(f"{EXPORT_FILE} of {source.place} names the column {taken[0]!r}, which every gallery has")
    return exported


def _check_same_model(folder: Path, manifest: Manifest, exported: Export) -> None:
    if (exported.encoder_fingerprint, exported.dim) != (manifest.encoder_fingerprint, manifest.dim):
        raise MixedModelsError(
            f"the export holds embeddings of model {exported.encoder_name[:200]!r} ({exported.encoder_fingerprint[:64]}), gallery "
            f"{folder} those of {manifest.encoder_name!r} ({manifest.encoder_fingerprint}); import it into a gallery of its own"
        )


def _parts(source: Source, exported: Export) -> Iterator[tuple[list[dict[str, Any]], np.ndarray]]:
    """Rows with thumbnails, and embeddings, of each part; checked."""
    for number, part in enumerate(exported.parts):
        names = f"rows-{number:05d}.jsonl", f"embeddings-{number:05d}.npy"
        lines, vectors = source.read(names[0]), source.read(names[1])
        for name, content, digest in zip(names, (lines, vectors), (part.lines, part.embeddings), strict=True):
            if _sha256(content) != digest:
                raise DataError(f"export {source.place} is damaged: {name} has another SHA-256 than {EXPORT_FILE} says")
        texts = lines.splitlines()
        if len(texts) != part.rows:
            raise DataError(f"{names[0]} of {source.place} has {len(texts):,} lines, not {part.rows:,}")
        try:
            embeddings = _vectors(vectors, (part.rows, exported.dim))
            rows = [_row(text, exported.columns) for text in texts]
            for row in rows:
                row["thumbnail"] = _thumbnail(source.read(f"thumbnails/{number:05d}/{row['id']}.jpg"), row.pop("thumbnail_sha256"))
        except (ValueError, RecursionError, ImageError) as error:
            raise DataError(f"part {number} of export {source.place}: {error}") from error
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
        raise ValueError("embeddings that are no unit vectors")
    return embeddings


def _row(line: bytes, columns: Mapping[str, Kind]) -> dict[str, Any]:
    """One line as the table stores it, with thumbnail_sha256. Raises ValueError on anything that is not as it should be."""
    row = json.loads(line)
    if not isinstance(row, dict) or row.keys() != {*EXPORT_COLUMNS, "thumbnail_sha256", *columns}:
        raise ValueError("a line does not have the columns that the export names")
    for name in ("content_hash", "thumbnail_sha256"):
        if not isinstance(row[name], str) or not _HASH.fullmatch(row[name]):
            raise ValueError(f"{name} {str(row[name])[:80]!r} is no SHA-256")
    if row["id"] != row["content_hash"][:24]:
        raise ValueError(f"id {str(row['id'])[:80]!r} does not belong to its content hash")
    if not isinstance(row["attributes"], dict):
        raise ValueError("attributes that are no JSON object")
    row["attributes"] = json_text(row["attributes"])
    texts = ["source", "root", "attributes", *(name for name, kind in columns.items() if kind == "text"), "identity", "camera"]
    for name in texts:
        _check_text(name, row[name], required=name in texts[:3])
    if row["captured_at"] is not None and (moment := parse_time(row["captured_at"])) is None:
        raise ValueError(f"captured_at {str(row['captured_at'])[:80]!r} is no time")
    row["captured_at"] = None if row["captured_at"] is None else moment
    for name, kind in columns.items():
        value = row[name]
        if value is not None and kind != "text" and not _is_of(kind, value):
            raise ValueError(f"column {name!r} holds a value that is no {told_kind(kind)}")
    return row


def _check_text(name: str, value: Any, required: bool) -> None:
    if value is None and not required:
        return
    if not isinstance(value, str) or len(value) > MAX_TEXT or "\0" in value:
        raise ValueError(f"{name} is no text of at most {MAX_TEXT:,} characters")
    value.encode()  # UnicodeEncodeError is a ValueError


def _is_of(kind: Kind, value: Any) -> bool:
    """Whether a value is what an export has in a column of that kind: whole numbers without a point, others with one."""
    expected = {"truth": bool, "integer": int, "number": float}[kind]
    return type(value) is expected and fitted(value, kind) is not None


def _thumbnail(content: bytes, digest: str) -> bytes:
    if _sha256(content) != digest:
        raise ValueError("a thumbnail has another SHA-256 than its line says")
    size = open_image(content).size
    if not content.startswith(b"\xff\xd8\xff") or size[0] > THUMBNAIL[0] or size[1] > THUMBNAIL[1]:
        raise ValueError(f"a thumbnail is no JPEG of at most {THUMBNAIL[0]} x {THUMBNAIL[1]} pixels")
    return content


def _table(folder: Path, manifest: Manifest) -> Table:
    """The gallery's table, made with its manifest where it is not there yet; under the lock."""
    found = read_manifest(folder)
    if found is None:
        write_manifest(folder, manifest)
        found = manifest
    if found.encoder_fingerprint != manifest.encoder_fingerprint:
        raise MixedModelsError(f"gallery {folder} came to another model while images were imported; nothing more was added")
    return Table.begin(folder, found.dim, found.table)


def _fit_columns(rows: list[dict[str, Any]], table: Table, columns: Mapping[str, Kind], lost: Counter[str]) -> set[str]:
    """Adds the export's columns to the table, and fits the rows to what it has; the names of those that cannot be added.

    Values that the table's column cannot hold stay in the attributes only, and are counted in `lost`.
    """
    existing = table.extras()
    fresh = [name for name in columns if name not in existing]
    left_out = {name for name, kind in columns.items() if not _alike(existing.get(name, kind), kind)}
    left_out |= set(fresh[max(0, MAX_COLUMNS - len(existing)) :])
    widened = {
        name: kind
        for name, kind in columns.items()
        if (existing.get(name), kind) == ("integer", "number")
        and any(row[name] is not None and fitted(row[name], "integer") is None for row in rows)
        and table.doubles_hold(name)
    }
    table.add_columns({name: columns[name] for name in fresh if name not in left_out} | widened)
    existing |= widened
    for row in rows:
        row.update(dict.fromkeys(left_out))
    for name in sorted(existing.keys() & columns.keys() - left_out):
        if (kind := existing[name]) != columns[name]:
            for row in rows:
                given, row[name] = row[name], fitted(row[name], kind)
                lost[name] += given is not None and row[name] is None
    return left_out


def _alike(one: Kind, other: Kind) -> bool:
    """Whether values of one kind can be kept as the other: numbers of both kinds where they lose nothing."""
    return one == other or {one, other} == {"integer", "number"}
