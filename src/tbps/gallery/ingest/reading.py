"""Pictures on their way to the encoder: threads read, hash, decode and shrink them, a window ahead of who takes them."""

import hashlib
import io
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from tbps.errors import DataError, ImageError
from tbps.gallery.ingest.archives import Member, read_members
from tbps.gallery.ingest.commits import Row, Writer
from tbps.gallery.ingest.folders import Failure, refusal_of
from tbps.gallery.ingest.footage import Person
from tbps.gallery.ingest.sources import Candidate
from tbps.gallery.store.columns import THUMBNAIL
from tbps.preprocess.exif import Taken
from tbps.preprocess.image import MAX_FILE_BYTES, ImageSpec, Photograph, capture_time, open_photograph, to_array, upright_rgb

READERS = 4
UNREAD_TIME = "has a capture time in its EXIF data that is no time; it was ignored"
_UNNAMED = re.compile(r"^<[^>]*>: ")  # how `preprocess.image` names a picture that has no path


@dataclass(frozen=True, slots=True)
class Read:
    """One picture read: its row, or those of the people in it; none where it replaces another and nothing may be changed.

    file_hash: of its content; done: the scene's key and what is told of it; known: done before; own, former: the rows of its path
    that show what it holds now and what it held before; remarks: on how it was read.
    """

    candidate: Candidate
    rows: tuple[Row, ...]
    file_hash: str
    done: tuple[str, Mapping[str, Any]] | None = None
    known: bool = False
    own: tuple[str, ...] = ()
    former: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


_Content = Path | Image.Image | bytes | str  # text says why there is none


def read_ahead(candidates: Sequence[Candidate], writer: Writer) -> Iterator[Read | Failure]:
    """The candidates read by threads, in order, a window ahead; archives by this thread, no more than a file's size ahead."""
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="tbps-read")
    try:
        ahead: deque[tuple[Future[Read | Failure], int]] = deque()
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


def _read(candidate: Candidate, content: _Content, writer: Writer) -> Read | Failure:
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
        look = _look if writer.lookout.footage.settings.photographs else _whole
        return look(candidate, source, writer)
    except DataError as error:
        return candidate.name, _UNNAMED.sub("", str(error))
    except OSError as error:
        return candidate.name, f"cannot be read ({error.strerror or error})"


def _whole(candidate: Candidate, source: bytes | Image.Image, writer: Writer) -> Read:
    """A picture that is one crop of a person."""
    digest = _content_hash(source)
    own, former = writer.known.parted(candidate, digest)
    if (known := writer.known_as(digest, candidate.columns)) is not None:
        taken = capture_time(source) if isinstance(source, bytes) else Taken()
        return Read(candidate, (Row(_timed(candidate, taken), known, None, b""),), digest, own=own, former=former)
    if former and not writer.refresh:
        return Read(candidate, (), digest, own=own, former=former)
    photograph = open_photograph(source) if isinstance(source, bytes) else Photograph(source)
    identity = writer.lookout.identity(digest, candidate.columns)
    row = _image_row(_timed(candidate, photograph.taken), identity, photograph.image, writer.spec)
    return Read(candidate, (row,), digest, own=own, former=former, remarks=_remarks(candidate, photograph))


def _look(candidate: Candidate, source: bytes | Image.Image, writer: Writer) -> Read:
    """The people in a photograph of a whole scene."""
    lookout, content_hash = writer.lookout, _content_hash(source)
    digest = lookout.identity(content_hash, candidate.columns)
    done = lookout.key(digest, writer.fingerprint), lookout.told(candidate.columns, digest)
    own, former = writer.known.parted(candidate, content_hash)
    before = lookout.done_as(content_hash, candidate.columns, writer.fingerprint)
    if before is not None and not (former and not own and writer.refresh):
        return Read(candidate, (), content_hash, before, True, own, former)
    if former and not writer.refresh:
        return Read(candidate, (), content_hash, None, False, own, former)
    photograph = open_photograph(source) if isinstance(source, bytes) else Photograph(source)
    timed = _timed(candidate, photograph.taken)
    people = lookout.in_photograph(candidate.name, photograph.image, digest, timed.columns)
    origin = done[0] if before is None else ""  # what comes back after it was replaced is added again
    rows = tuple(person_row(person, timed, writer.spec, origin) for person in people)
    return Read(candidate, rows, content_hash, done, False, own, former, _remarks(candidate, photograph))


def _timed(candidate: Candidate, taken: Taken) -> Candidate:
    """A candidate with the time of capture of its EXIF data, where its metadata name none."""
    if taken.at is None or candidate.columns.get("captured_at") is not None:
        return candidate
    return replace(candidate, columns={**candidate.columns, "captured_at": taken.at})


def _remarks(candidate: Candidate, photograph: Photograph) -> tuple[str, ...]:
    unread = photograph.taken.unread is not None and candidate.columns.get("captured_at") is None
    return (*photograph.remarks, *([UNREAD_TIME] if unread else []))


def _image_row(candidate: Candidate, content_hash: str, image: Image.Image, spec: ImageSpec) -> Row:
    pixels = to_array(image, spec)
    return Row(candidate, content_hash, pixels, _thumbnail(image))


def person_row(person: Person, candidate: Candidate, spec: ImageSpec, origin: str) -> Row:
    """The row of a person found in the scene or video `candidate`."""
    row = _image_row(replace(candidate, columns=person.columns), person.content_hash, person.image, spec)
    return replace(row, origin=origin)


def check_file(file: Path) -> None:
    """Raises ImageError where nothing can be read, or the path cannot be stored."""
    if not _is_utf8(str(file)):
        raise ImageError("its path is not UTF-8 text and cannot be stored; rename the file or its folder")
    if (reason := refusal_of(file)) is not None:
        raise ImageError(reason)


def _most_bytes(candidate: Candidate) -> int:
    return MAX_FILE_BYTES if candidate.admission is None else min(candidate.admission.most_bytes, MAX_FILE_BYTES)


def _bytes_of(file: Path, limit: int) -> bytes:
    check_file(file)
    if (size := file.stat().st_size) > limit:
        raise ImageError(f"{size:,} bytes are more than {limit:,}; shrink the picture first")
    return file.read_bytes()


def _content_hash(source: bytes | Image.Image) -> str:
    """SHA-256 of a file's bytes, or of the upright RGB pixels of a picture that is no file, or of whose file only they count."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    digest = hashlib.sha256(f"{source.mode} {source.size} ".encode())
    digest.update(source.tobytes())
    return digest.hexdigest()


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
