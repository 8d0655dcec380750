"""Bulk indexing: reader (threads: bytes, hash, decode, shrink) -> mapper (the encoder) -> writer (committed batches).

Memory is bounded: a picture is shrunk to the encoder's input and a thumbnail by the thread that decoded it, and only a window
of pictures is read ahead. A row is acknowledged (`on_progress`, the report) after its batch is committed. Videos come last, one
after another; each is remembered as done with the commit of its last rows. The gallery is locked for a commit only.
"""

import hashlib
import io
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tbps.errors import DataError, GalleryError, ImageError, MissingDependencyError, ModelError, SettingsError, StorageError
from tbps.preprocess.image import MAX_FILE_BYTES, ImageSpec, open_image, to_array, upright_rgb
from tbps.search.archives import Failure, Member, read_members
from tbps.search.columns import Kind, RowMetadata, plan_columns, row_metadata
from tbps.search.encoder import Encoder
from tbps.search.footage import COLUMNS, Lookout, Person, VideoReport, file_hash, report_of
from tbps.search.sources import Candidate, Sources
from tbps.search.table import KnownRow, Table
from tbps.search.video import Tally

OnProgress = Callable[[int, int], None]
Writing = Callable[[], AbstractContextManager[Table]]  # the gallery's lock, and the table that answers at that moment

THUMBNAIL = (224, 256)
READERS = 4
COMMIT_ROWS = 256
COMMIT_SECONDS = 5.0
_PROGRESS_SKIPS = 64
_UNNAMED = re.compile(r"^<[^>]*>: ")  # how `preprocess.image` names a picture that has no path


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of everything that was found.

    added: rows; skipped_existing: pictures, crops, scenes and videos that were there or done already. Without scenes and videos
    `added` + `skipped_existing` + len(`failed`) is the number of pictures.
    failed, duplicates: (name, reason). A duplicate has the bytes of a picture already in the gallery but another name or other
    metadata; what came first is kept, and it counts as skipped. notes: remarks on the metadata as a whole.
    nobody: names of the scenes and videos in which no person was found; videos: what was met in each that was looked at.
    """

    added: int
    skipped_existing: int
    failed: tuple[Failure, ...]
    duplicates: tuple[Failure, ...]
    notes: tuple[str, ...]
    seconds: float
    nobody: tuple[str, ...] = ()
    videos: tuple[VideoReport, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    """One row to be; `pixels` (height, width, 3) uint8 is None when its hash is known; `origin`: the key of its scene or video."""

    candidate: Candidate
    content_hash: str
    pixels: np.ndarray | None
    thumbnail: bytes
    origin: str = ""


@dataclass(frozen=True, slots=True)
class _Read:
    """One picture read: its row, or those of the people in it. done: the scene's key and what is told of it; known: done before."""

    candidate: Candidate
    rows: tuple[_Row, ...]
    done: tuple[str, Mapping[str, Any]] | None = None
    known: bool = False


def ingest(
    writing: Writing, model: Encoder, sources: Sources, batch_size: int, on_progress: OnProgress | None, lookout: Lookout
) -> IngestReport:
    """Adds the sources to the table, which other processes may add to meanwhile.

    Raises StorageError on a full or read-only disk and ModelError on broken embeddings; committed rows stay.
    """
    started = time.monotonic()
    without_time = [video.name for video in sources.videos if video.columns.get("captured_at") is None]
    if lookout.footage.start is not None and len(without_time) > 1:
        raise SettingsError(
            f"start {lookout.footage.start} is that of one recording, but there are {len(without_time)} videos ({without_time[0]}, "
            "...); index them one by one, or give each its captured_at in a metadata.jsonl"
        )
    looks = bool(sources.videos) or lookout.footage.settings.photographs
    given = (lookout.columns(candidate.columns) for candidate in (*sources.candidates, *sources.videos))
    with writing() as table:
        plan = plan_columns([*given, *([COLUMNS] if looks else [])], table.extras())
        table.add_columns(plan.kinds)
        writer = _Writer(writing, model, plan.kinds, batch_size, lookout, table)
    outcome = _Outcome(failed=list(sources.failed))
    _pictures(sources.candidates, writer, outcome, on_progress or (lambda done, total: None))
    for video in sources.videos:
        _video(video, writer, outcome)
    writer.commit()
    notes = [*sources.notes, *plan.notes]
    try:
        with writing() as table:
            table.tidy()
    except StorageError as error:
        notes.append(f"everything was added, but the gallery could not be tidied: {error}")
    return IngestReport(
        writer.added,
        outcome.skipped + writer.met,
        tuple(outcome.failed),
        tuple(outcome.duplicates),
        tuple(notes),
        time.monotonic() - started,
        tuple(outcome.nobody),
        tuple(outcome.videos),
    )


@dataclass(slots=True)
class _Outcome:
    """The report as it grows."""

    failed: list[Failure]
    skipped: int = 0
    duplicates: list[Failure] = field(default_factory=list)
    nobody: list[str] = field(default_factory=list)
    videos: list[VideoReport] = field(default_factory=list)

    def take(self, row: _Row, writer: "_Writer") -> bool:
        """Gives a row to the writer, unless it is known; whether it did."""
        if (known := writer.known.get(row.content_hash)) is None:
            writer.add(row)
            return True
        self.skipped += 1
        if (reason := _difference(row.candidate, known)) is not None:
            self.duplicates.append((row.candidate.name, reason))
        return False

    def done_before(self, name: str, key: str, told: Mapping[str, Any], writer: "_Writer") -> None:
        """Counts a scene or video that was looked at to its end before."""
        self.skipped += 1
        if writer.lookout.record.differs(key, told):
            self.duplicates.append((name, "was looked at before with other metadata, which were kept"))


def _pictures(candidates: Sequence[Candidate], writer: "_Writer", outcome: _Outcome, progress: OnProgress) -> None:
    settled, total = 0, len(candidates)
    progress(0, total)
    for item in _read_ahead(candidates, writer):
        if not isinstance(item, _Read):
            outcome.failed.append(item)
            settled += 1
        elif item.known and item.done is not None:
            outcome.done_before(item.candidate.name, *item.done, writer)
            settled += 1
        else:
            waits = [outcome.take(row, writer) for row in item.rows]
            if item.done is not None:
                writer.remember(*item.done)
                outcome.nobody += [] if item.rows else [item.candidate.name]
            if any(waits) or item.done is not None:
                writer.pictures += 1
            else:
                settled += 1
        if writer.commit_if_due() or (settled and settled % _PROGRESS_SKIPS == 0):
            progress(writer.settled + settled, total)
    writer.commit()
    progress(total, total)


def _video(video: Candidate, writer: "_Writer", outcome: _Outcome) -> None:
    """Looks at one video to its end, unless that was done before."""
    lookout, tally = writer.lookout, Tally()
    columns = lookout.columns(video.columns)
    try:
        if not isinstance(video.picture, Path):
            raise DataError("is no file")
        _check_file(video.picture)
        lookout.check(columns)
        content_hash = file_hash(video.picture)
        key, told = lookout.key(content_hash, writer.fingerprint), lookout.told(columns, content_hash)
        lookout.record.refresh()
        if key in lookout.record:
            outcome.done_before(video.name, key, told, writer)
            return
        for person in lookout.in_video(video.name, video.picture, (content_hash, key), columns, tally):
            outcome.take(_person_row(person, video, writer.spec, key), writer)
            writer.commit_if_due()
    except (DataError, MissingDependencyError) as error:
        outcome.failed.append((video.name, str(error)))
        return
    except OSError as error:
        outcome.failed.append((video.name, f"cannot be read ({error.strerror or error})"))
        return
    if not tally.frames:
        outcome.failed.append((video.name, f"none of its frames can be decoded ({tally.broken} broken packets)"))
        return
    writer.remember(key, told)
    outcome.videos.append(report_of(video.name, tally))
    outcome.nobody += [] if tally.crops else [video.name]


class _Writer:
    """Gathers rows into encoder batches, and embedded rows into commits of 256 rows or 5 seconds.

    `pictures` counts those whose rows wait for a commit, `settled` those whose rows are committed, `met` the rows that another
    process had added by then, which are left out.
    """

    def __init__(
        self,
        writing: Writing,
        model: Encoder,
        kinds: Mapping[str, Kind],
        batch_size: int,
        lookout: Lookout,
        table: Table,
    ) -> None:
        self._writing, self._model, self._kinds, self._batch_size = writing, model, kinds, batch_size
        self._waiting: list[_Row] = []
        self._rows: list[dict[str, Any]] = []
        self._origins: list[str] = []
        self._embeddings: list[np.ndarray] = []
        self._done: dict[str, Mapping[str, Any]] = {}
        self._last_commit = time.monotonic()
        self.lookout, self.spec, self.fingerprint, self.window = lookout, model.spec, model.fingerprint, 2 * batch_size
        self._alone, self._seen = True, table.state()  # whether nobody else has written since `known` was read
        self.known = table.known()
        self.added = self.met = self.pictures = self.settled = 0

    def add(self, row: _Row) -> None:
        metadata = row_metadata(row.candidate.columns, self._kinds)
        self.known[row.content_hash] = _known_row(row.candidate, metadata)
        self._rows.append(_table_row(row, metadata, self.fingerprint))
        self._origins.append(row.origin)
        self._waiting.append(row)
        if len(self._waiting) == self._batch_size:
            self._encode()

    def remember(self, key: str, told: Mapping[str, Any]) -> None:
        """Notes a scene or video as done, with the next commit."""
        self._done[key] = told

    def commit_if_due(self) -> bool:
        """Commits when enough rows or time have gathered, if it can whole encoder batches; whether it did."""
        rows, seconds = len(self._rows), time.monotonic() - self._last_commit
        due = rows >= COMMIT_ROWS or seconds >= COMMIT_SECONDS
        overdue = rows >= 2 * COMMIT_ROWS or seconds >= 2 * COMMIT_SECONDS
        if not (self._rows or self._done) or not (overdue or (due and not self._waiting)):
            return False
        self.commit()
        return True

    def commit(self) -> None:
        """Encodes what waits and commits every row, then what is done with them."""
        if self._waiting:
            self._encode()
        if self._rows or self._done:
            with self._writing() as table:
                self.lookout.record.refresh()
                if self._rows:
                    self._append(table, self._rows, np.concatenate(self._embeddings))
                self.lookout.record.append(self._done)
        self.settled, self.pictures = self.settled + self.pictures, 0
        self._rows, self._origins, self._embeddings, self._done, self._last_commit = [], [], [], {}, time.monotonic()

    def _append(self, table: Table, rows: list[dict[str, Any]], embeddings: np.ndarray) -> None:
        if self._kinds.items() - table.extras().items():
            raise GalleryError("an older snapshot of the gallery was restored while pictures were added; run again")
        self._alone = self._alone and table.state() == self._seen
        present = set() if self._alone else table.present([row["id"] for row in rows])
        # What another process has looked at to its end stays as it is: its people may have been forgotten since.
        finished = [origin in self.lookout.record for origin in self._origins]
        kept = [place for place, row in enumerate(rows) if row["id"] not in present and not finished[place]]
        if kept:
            table.append([rows[place] for place in kept], embeddings[kept])
        self._seen = table.state()
        self.added, self.met = self.added + len(kept), self.met + len(rows) - len(kept)

    def _encode(self) -> None:
        pixels = [row.pixels for row in self._waiting if row.pixels is not None]
        embeddings = self._model.encode_images([Image.fromarray(p) for p in pixels], batch_size=self._batch_size)
        self._embeddings.append(checked_embeddings(embeddings, (len(pixels), self._model.dim), self._model.name))
        self._waiting = []


_Content = Path | Image.Image | bytes | str  # text says why there is none


def _read_ahead(candidates: Sequence[Candidate], writer: _Writer) -> Iterator[_Read | Failure]:
    """The candidates read by threads, in order, a window ahead; archives by this thread, no more than a file's size ahead."""
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="tbps-read")
    try:
        ahead: deque[tuple[Future[_Read | Failure], int]] = deque()
        held = 0
        for candidate, content in _contents(candidates):
            size = len(content) if isinstance(content, bytes) else 0
            ahead.append((pool.submit(_read, candidate, content, writer), size))
            held += size
            while len(ahead) >= writer.window or (held > MAX_FILE_BYTES and ahead):
                future, size = ahead.popleft()
                held -= size
                yield future.result()
        while ahead:
            yield ahead.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


def _contents(candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, _Content]]:
    """Every candidate with what is to be read; those that lie one after another in an archive are read in one go."""

    def archive(candidate: Candidate) -> tuple[Path | None, int]:
        return candidate.picture.archive if isinstance(candidate.picture, Member) else None, _most_bytes(candidate)

    for (place, limit), group in groupby(candidates, archive):
        run = list(group)
        if place is None:
            yield from ((c, c.picture) for c in run if not isinstance(c.picture, Member))
        else:
            numbers = [c.picture.number for c in run if isinstance(c.picture, Member)]
            yield from zip(run, read_members(place, numbers, limit), strict=True)


def _read(candidate: Candidate, content: _Content, writer: _Writer) -> _Read | Failure:
    if isinstance(content, str):
        return candidate.name, content
    candidate = replace(candidate, columns=writer.lookout.columns(candidate.columns))
    try:
        writer.lookout.check(candidate.columns)
        if not _is_utf8(f"{candidate.root}/{candidate.name}"):
            raise ImageError("its path is not UTF-8 text and cannot be stored; rename the file or its folder")
        source = _bytes_of(content, _most_bytes(candidate)) if isinstance(content, Path) else content
        if isinstance(source, Image.Image):
            source = upright_rgb(source)
        elif candidate.admission is not None:
            source = candidate.admission.open(source)
        if writer.lookout.footage.settings.photographs:
            return _look(candidate, source, writer)
        digest = _content_hash(source)
        if digest in writer.known:
            return _Read(candidate, (_Row(candidate, digest, None, b""),))
        image = open_image(source) if isinstance(source, bytes) else source
        return _Read(candidate, (_image_row(candidate, digest, image, writer.spec),))
    except DataError as error:
        return candidate.name, _UNNAMED.sub("", str(error))
    except OSError as error:
        return candidate.name, f"cannot be read ({error.strerror or error})"


def _look(candidate: Candidate, source: bytes | Image.Image, writer: _Writer) -> _Read:
    """The people in a photograph of a whole scene."""
    lookout, digest = writer.lookout, _content_hash(source)
    done = lookout.key(digest, writer.fingerprint), lookout.told(candidate.columns, digest)
    if done[0] in lookout.record:
        return _Read(candidate, (), done, known=True)
    image = open_image(source) if isinstance(source, bytes) else source
    people = lookout.in_photograph(candidate.name, image, digest, candidate.columns)
    return _Read(candidate, tuple(_person_row(person, candidate, writer.spec, done[0]) for person in people), done)


def _image_row(candidate: Candidate, content_hash: str, image: Image.Image, spec: ImageSpec) -> _Row:
    pixels = to_array(image, spec)
    return _Row(candidate, content_hash, pixels, _thumbnail(image))


def _person_row(person: Person, candidate: Candidate, spec: ImageSpec, origin: str) -> _Row:
    row = _image_row(replace(candidate, columns=person.columns), person.content_hash, person.image, spec)
    return replace(row, origin=origin)


def _check_file(file: Path) -> None:
    if not _is_utf8(str(file)):
        raise ImageError("its path is not UTF-8 text and cannot be stored; rename the file or its folder")
    if not file.is_file():
        raise ImageError("is no file" if file.exists() else "there is no such file")


def _most_bytes(candidate: Candidate) -> int:
    return MAX_FILE_BYTES if candidate.admission is None else min(candidate.admission.most_bytes, MAX_FILE_BYTES)


def _bytes_of(file: Path, limit: int) -> bytes:
    _check_file(file)
    if (size := file.stat().st_size) > limit:
        raise ImageError(f"{size:,} bytes are more than {limit:,}; shrink the picture first")
    return file.read_bytes()


def _content_hash(source: bytes | Image.Image) -> str:
    """SHA-256 of a file's bytes, or of the upright RGB pixels of a picture that is no file, or of whose file only they count."""
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


def _table_row(item: _Row, metadata: RowMetadata, fingerprint: str) -> dict[str, Any]:
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
