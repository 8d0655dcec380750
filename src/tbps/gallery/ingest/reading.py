"""Steps of reading a picture that need no gallery: bytes, decoding, encoder input, thumbnail, and work in threads."""

import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from tbps.errors import ImageError
from tbps.gallery.ingest.known import AtPath
from tbps.gallery.ingest.record import Finished
from tbps.gallery.ingest.row import Row
from tbps.gallery.ingest.sources.archives import Member, read_members
from tbps.gallery.ingest.sources.candidates import Candidate
from tbps.gallery.ingest.sources.folders import refusal_of
from tbps.gallery.store.columns import THUMBNAIL, RowMetadata
from tbps.preprocess.exif import Taken
from tbps.preprocess.image import MAX_FILE_BYTES, ImageSpec, Photograph, capture_time, open_photograph, to_array, upright_rgb
from tbps.preprocess.metadata import parse_time

READERS = 4
UNREAD_TIME = "has an invalid capture time in its EXIF data, which was ignored"

Content = Path | Image.Image | bytes | str  # where a picture is read from, or its bytes; a text says why it cannot be read
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ReadPicture:
    """One picture that was read. rows: its own row, or those of the people in it; empty when there is nothing to add.

    metadata: the file's own; file_hash: hash of its content; at_path: the gallery's rows of its path; finished: the record of a
    scene; was_finished: whether the scene was searched before this run; remarks: remarks on how the picture was read.
    """

    candidate: Candidate
    metadata: RowMetadata
    rows: tuple[Row, ...]
    file_hash: str
    at_path: AtPath
    finished: Finished | None = None
    was_finished: bool = False
    remarks: tuple[str, ...] = ()


def contents_of(candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Content]]:
    """Each candidate with its content; those that follow each other in an archive are read in one pass."""

    def archive(candidate: Candidate) -> tuple[Path | None, int]:
        return candidate.picture.archive if isinstance(candidate.picture, Member) else None, _most_bytes(candidate)

    for (place, limit), group in groupby(candidates, archive):
        run = list(group)
        if place is None:
            yield from ((c, c.picture) for c in run if not isinstance(c.picture, Member))
        else:
            numbers = [c.picture.number for c in run if isinstance(c.picture, Member)]
            yield from zip(run, read_members(place, numbers, limit), strict=True)


def in_threads(
    work: Callable[[Candidate, Content], _T], contents: Iterator[tuple[Candidate, Content]], window: int
) -> Iterator[_T]:
    """The results of `work` in the order of `contents`, computed by threads.

    At most `window` results are computed ahead, and no more bytes are held for them than one picture may have.
    """
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="tbps-read")
    try:
        ahead: deque[tuple[Future[_T], int]] = deque()
        held = 0
        for candidate, content in contents:
            size = len(content) if isinstance(content, bytes) else 0
            ahead.append((pool.submit(work, candidate, content), size))
            held += size
            while len(ahead) >= window or (held > MAX_FILE_BYTES and ahead):
                future, size = ahead.popleft()
                held -= size
                yield future.result()
        while ahead:
            yield ahead.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


def open_source(candidate: Candidate, content: Content) -> bytes | Image.Image:
    """The bytes of a picture's file; an upright picture when there is no file, or when it has an `Admission`.

    Raises ImageError on a file that is refused, OSError on one that cannot be read.
    """
    if isinstance(content, str):
        raise ImageError(content)
    if not _is_utf8(f"{candidate.root}/{candidate.name}"):
        raise ImageError("its path is not UTF-8 text and cannot be stored; rename the file or its folder")
    if isinstance(content, Image.Image):
        return upright_rgb(content)
    source = _read_file(content, _most_bytes(candidate)) if isinstance(content, Path) else content
    return source if candidate.admission is None else candidate.admission.open(source)


def decode(source: bytes | Image.Image) -> Photograph:
    """The decoded picture. Raises ImageError as `preprocess.image.open_photograph`."""
    return open_photograph(source) if isinstance(source, bytes) else Photograph(source)


def dated(metadata: RowMetadata, candidate: Candidate, taken: Taken) -> RowMetadata:
    """Adds the capture time of the EXIF data to the metadata when the candidate's own have none."""
    if taken.at is None or candidate.columns.get("captured_at") is not None:
        return metadata
    return replace(metadata, captured_at=parse_time(taken.at))


def dated_undecoded(metadata: RowMetadata, candidate: Candidate, source: bytes | Image.Image) -> RowMetadata:
    """As `dated`, for a picture that is not decoded."""
    return dated(metadata, candidate, capture_time(source) if isinstance(source, bytes) else Taken())


def remarks_on(candidate: Candidate, photograph: Photograph) -> tuple[str, ...]:
    """Remarks on how a picture was read."""
    unread = photograph.taken.unread is not None and candidate.columns.get("captured_at") is None
    return (*photograph.remarks, *([UNREAD_TIME] if unread else []))


def pixels_and_thumbnail(image: Image.Image, spec: ImageSpec) -> tuple[np.ndarray, bytes]:
    """The encoder's input, (height, width, 3) uint8, and a JPEG thumbnail of a picture; shrinks `image` in place."""
    pixels = to_array(image, spec)
    image.thumbnail(THUMBNAIL, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return pixels, buffer.getvalue()


def check_file(file: Path) -> None:
    """Raises ImageError when a path cannot be read as a file, or cannot be stored."""
    if not _is_utf8(str(file)):
        raise ImageError("its path is not UTF-8 text and cannot be stored; rename the file or its folder")
    if (reason := refusal_of(file)) is not None:
        raise ImageError(reason)


def _most_bytes(candidate: Candidate) -> int:
    return MAX_FILE_BYTES if candidate.admission is None else min(candidate.admission.most_bytes, MAX_FILE_BYTES)


def _read_file(file: Path, limit: int) -> bytes:
    check_file(file)
    if (size := file.stat().st_size) > limit:
        raise ImageError(f"{size:,} bytes are more than {limit:,}; shrink the picture first")
    return file.read_bytes()


def _is_utf8(path: str) -> bool:
    """Whether a path can be stored as text: Python keeps the bytes of other encodings as lone surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
