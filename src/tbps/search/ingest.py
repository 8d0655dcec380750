"""Bulk indexing: reader (threads: bytes, hash, decode, shrink) -> mapper (the encoder) -> writer (committed batches).

Memory is bounded: a picture is shrunk to the encoder's input and a thumbnail by the thread that decoded it, and only a window
of pictures is read ahead. A row is acknowledged (`on_progress`, the report) after its batch is committed.
"""

import hashlib
import io
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tbps.errors import GalleryError, ImageError, ModelError, StorageError
from tbps.preprocess.image import ImageSpec, open_image, to_array, upright_rgb
from tbps.search.columns import Kind, RowMetadata, plan_columns, row_metadata
from tbps.search.encoder import Encoder
from tbps.search.sources import Candidate, Failure, Sources
from tbps.search.table import KnownRow, Table

OnProgress = Callable[[int, int], None]
Writing = Callable[[], AbstractContextManager[Table]]  # the gallery's lock, and the table that answers at that moment

THUMBNAIL = (224, 256)
MAX_FILE_BYTES = 256 * 2**20
READERS = 4
COMMIT_ROWS = 256
COMMIT_SECONDS = 5.0
_PROGRESS_SKIPS = 64
_UNNAMED = re.compile(r"^<[^>]*>: ")  # how `preprocess.image` names a picture that has no path


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of every picture: `added` + `skipped_existing` + len(`failed`) of them.

    failed, duplicates: (name, reason). A duplicate has the bytes of a picture already in the gallery but another name or other
    metadata; what came first is kept, and it counts as skipped. notes: remarks on the metadata as a whole.
    """

    added: int
    skipped_existing: int
    failed: tuple[Failure, ...]
    duplicates: tuple[Failure, ...]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Read:
    """One picture read; `pixels` (height, width, 3) uint8 and thumbnail are None when its hash is known."""

    candidate: Candidate
    content_hash: str
    pixels: np.ndarray | None
    thumbnail: bytes


def ingest(writing: Writing, model: Encoder, sources: Sources, batch_size: int, on_progress: OnProgress | None) -> IngestReport:
    """Adds the sources to the table, which other processes may add to meanwhile.

    Raises StorageError on a full or read-only disk and ModelError on broken embeddings; committed rows stay.
    """
    started = time.monotonic()
    with writing() as table:
        plan = plan_columns((candidate.columns for candidate in sources.candidates), table.extras())
        table.add_columns(plan.kinds)
        writer = _Writer(writing, model, plan.kinds, batch_size, table)
    progress = on_progress or (lambda done, total: None)
    failed, duplicates = list(sources.failed), list[Failure]()
    skipped, total = 0, len(sources.candidates)
    progress(0, total)
    for item in _read_ahead(sources.candidates, writer.known, model.spec, 2 * batch_size):
        if isinstance(item, _Read):
            if (known := writer.known.get(item.content_hash)) is not None:
                skipped += 1
                if (reason := _difference(item.candidate, known)) is not None:
                    duplicates.append((item.candidate.name, reason))
            else:
                writer.add(item)
        else:
            failed.append(item)
        settled = skipped + len(failed) - len(sources.failed)
        if writer.commit_if_due() or (settled and settled % _PROGRESS_SKIPS == 0):
            progress(writer.added + settled, total)
    writer.commit()
    progress(total, total)
    notes = [*sources.notes, *plan.notes]
    try:
        with writing() as table:
            table.tidy()
    except StorageError as error:
        notes.append(f"everything was added, but the gallery could not be tidied: {error}")
    skipped += writer.met
    return IngestReport(writer.added, skipped, tuple(failed), tuple(duplicates), tuple(notes), time.monotonic() - started)


class _Writer:
    """Gathers pictures into encoder batches, and embedded rows into commits of 256 rows or 5 seconds.

    The gallery is locked for a commit only. `met` counts rows that another process had added by then, which are left out.
    """

    def __init__(self, writing: Writing, model: Encoder, kinds: Mapping[str, Kind], batch_size: int, table: Table) -> None:
        self._writing, self._model, self._kinds, self._batch_size = writing, model, kinds, batch_size
        self._waiting: list[_Read] = []
        self._rows: list[dict[str, Any]] = []
        self._embeddings: list[np.ndarray] = []
        self._last_commit = time.monotonic()
        self._alone, self._seen = True, table.state()  # whether nobody else has written since `known` was read
        self.known = table.known()
        self.added = self.met = 0

    def add(self, item: _Read) -> None:
        metadata = row_metadata(item.candidate.columns, self._kinds)
        self.known[item.content_hash] = _known_row(item.candidate, metadata)
        self._rows.append(_row(item, metadata, self._model.fingerprint))
        self._waiting.append(item)
        if len(self._waiting) == self._batch_size:
            self._encode()

    def commit_if_due(self) -> bool:
        """Commits whole encoder batches when enough rows or time have gathered; whether it did."""
        due = len(self._rows) >= COMMIT_ROWS or time.monotonic() - self._last_commit >= COMMIT_SECONDS
        if self._waiting or not self._rows or not due:
            return False
        self.commit()
        return True

    def commit(self) -> None:
        """Encodes what waits and commits every row."""
        if self._waiting:
            self._encode()
        if self._rows:
            with self._writing() as table:
                self._append(table, self._rows, np.concatenate(self._embeddings))
        self._rows, self._embeddings, self._last_commit = [], [], time.monotonic()

    def _append(self, table: Table, rows: list[dict[str, Any]], embeddings: np.ndarray) -> None:
        if self._kinds.items() - table.extras().items():
            raise GalleryError("an older snapshot of the gallery was restored while pictures were added; run again")
        self._alone = self._alone and table.state() == self._seen
        present = set() if self._alone else table.present([row["id"] for row in rows])
        kept = [place for place, row in enumerate(rows) if row["id"] not in present]
        if kept:
            table.append([rows[place] for place in kept], embeddings[kept])
        self._seen = table.state()
        self.added, self.met = self.added + len(kept), self.met + len(rows) - len(kept)

    def _encode(self) -> None:
        pixels = [item.pixels for item in self._waiting if item.pixels is not None]
        embeddings = self._model.encode_images([Image.fromarray(p) for p in pixels], batch_size=self._batch_size)
        self._embeddings.append(checked_embeddings(embeddings, (len(pixels), self._model.dim), self._model.name))
        self._waiting = []


def _read_ahead(
    candidates: Sequence[Candidate], known: Mapping[str, KnownRow], spec: ImageSpec, window: int
) -> Iterator[_Read | Failure]:
    """The candidates read by threads, in order, at most `window` ahead."""
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="tbps-read")
    try:
        ahead: deque[Future[_Read | Failure]] = deque()
        for candidate in candidates:
            ahead.append(pool.submit(_read, candidate, known, spec))
            if len(ahead) >= window:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(candidate: Candidate, known: Mapping[str, KnownRow], spec: ImageSpec) -> _Read | Failure:
    picture = candidate.picture
    try:
        source = _bytes_of(picture) if isinstance(picture, Path) else upright_rgb(picture)
        digest = _content_hash(source)
        if digest in known:
            return _Read(candidate, digest, None, b"")
        image = open_image(source) if isinstance(source, bytes) else source
    except ImageError as error:
        return candidate.name, _UNNAMED.sub("", str(error))
    except OSError as error:
        return candidate.name, f"cannot be read ({error.strerror or error})"
    pixels = to_array(image, spec)
    return _Read(candidate, digest, pixels, _thumbnail(image))


def _bytes_of(file: Path) -> bytes:
    if not _is_utf8(str(file)):
        raise ImageError("its path is not UTF-8 text and cannot be stored; rename the file or its folder")
    if not file.is_file():
        raise ImageError("is no file" if file.exists() else "there is no such file")
    if (size := file.stat().st_size) > MAX_FILE_BYTES:
        raise ImageError(f"{size:,} bytes are more than {MAX_FILE_BYTES:,}; shrink the picture first")
    return file.read_bytes()


def _content_hash(source: bytes | Image.Image) -> str:
    """SHA-256 of a file's bytes, or of the upright RGB pixels of a picture that is no file."""
    content = source if isinstance(source, bytes) else f"{source.mode} {source.size} ".encode() + source.tobytes()
    return hashlib.sha256(content).hexdigest()


def _is_utf8(path: str) -> bool:
    """Whether a path can be stored as text: Python keeps the bytes of other encodings as lone surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _thumbnail(image: Image.Image) -> bytes:
    """JPEG bytes; shrinks `image` itself."""
    image.thumbnail(THUMBNAIL, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _row(item: _Read, metadata: RowMetadata, fingerprint: str) -> dict[str, Any]:
    return {
        "id": item.content_hash[:24],
        "thumbnail": item.thumbnail,
        "source": item.candidate.name,
        "root": item.candidate.root,
        "identity": metadata.identity,
        "camera": metadata.camera,
        "captured_at": metadata.captured_at,
        "attributes": metadata.attributes,
        "content_hash": item.content_hash,
        "model": fingerprint,
        **metadata.extras,
    }


def _known_row(candidate: Candidate, metadata: RowMetadata) -> KnownRow:
    return KnownRow(candidate.name, metadata.identity, metadata.camera, metadata.captured_at, metadata.attributes)


def _difference(candidate: Candidate, known: KnownRow) -> str | None:
    """How a picture whose bytes are known differs from the one that was kept; None if it is the same again."""
    again = _known_row(candidate, row_metadata(candidate.columns, {}))
    if again.source != known.source:
        return f"has the same content as {known.source}, which was kept"
    return None if again == known else "was indexed before with other metadata, which were kept"


def checked_embeddings(embeddings: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    """Embeddings as they are stored. Raises ModelError when shape or lengths are wrong; `name` is the model's."""
    if embeddings.shape != shape:
        raise ModelError(f"model {name!r} gave embeddings of shape {embeddings.shape} instead of {shape}")
    if not np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3):
        raise ModelError(f"model {name!r} gave embeddings that are not unit vectors; its weights may be damaged")
    return np.ascontiguousarray(embeddings, np.float32)
