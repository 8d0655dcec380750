"""What there is to index: a folder, a folder with a `metadata.jsonl`, archives, videos, or a list of files and pictures."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from tbps.errors import AnnotationError, DataError
from tbps.preprocess.metadata import METADATA_FILE, read_metadata, resolve_inside
from tbps.redact import is_address
from tbps.search.archives import PICTURES, VIDEOS, Failure, Member, is_archive, list_archive
from tbps.search.manifest import MANIFEST_FILE

_KNOWN = f"{', '.join(sorted(PICTURES))}; tar, zip; {', '.join(sorted(VIDEOS))}"
_MAX_SHARDS = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Admission:
    """What pictures that somebody else sent are held to, alone or in an archive.

    most_bytes: of a file, known before it is read; open: the picture of a file's bytes, or an ImageError that says why not.
    """

    most_bytes: int
    open: Callable[[bytes], Image.Image]


@dataclass(frozen=True, slots=True)
class Named:
    """A file that goes by another name; where it lies is not kept. With an admission only the pixels of its pictures count."""

    name: str
    file: Path
    admission: Admission | None = None


Picture = str | Path | Image.Image


@dataclass(frozen=True, slots=True)
class Candidate:
    """One picture or video: `name` below `root` for a file ("a.tar/1.jpg" in an archive), `picture` its place or itself."""

    name: str
    root: str
    picture: Path | Member | Image.Image
    columns: Mapping[str, Any] = field(default_factory=dict)
    admission: Admission | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """Pictures and videos in a fixed order, what is already known to fail with the reason, and remarks."""

    candidates: tuple[Candidate, ...]
    failed: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    videos: tuple[Candidate, ...] = ()


def find_sources(
    images: str | Path | Iterable[Picture | Named], metadata: str | Path | Sequence[Mapping[str, Any]] | None
) -> Sources:
    """Every picture and video of a folder and its subfolders by name, archives looked into; or those of a list.

    A `metadata.jsonl` of the folder names its pictures; lines may also give columns to a video or to all pictures of an archive.
    "shard-{000..012}.tar" is a list of files. Hidden files and folders, other galleries and links that lead out of the folder
    are left out. `metadata` is another file in place of the folder's own, or one mapping for each entry of a list.
    Raises DataError when there is nothing to index or a network address is given, AnnotationError on a malformed metadata file.
    """
    refuse_addresses([images] if isinstance(images, str | Path | Image.Image) else (images := list(images)))
    if isinstance(images, str | Path) and os.path.isdir(images):
        if metadata is not None and not isinstance(metadata, str | Path):
            raise DataError("a folder takes its metadata from a file; pass its path, or pass the pictures as a list")
        return _of_folder(Path(images), None if metadata is None else Path(metadata))
    if isinstance(images, str | Path):
        images = [images] if os.path.exists(images) else _shards(str(images))
    if isinstance(metadata, str | Path):
        raise DataError(
            f"the names in {metadata} are relative to a folder; index that folder, or pass one mapping for each picture of the list"
        )
    return _of_list(list(images), metadata)


def refuse_addresses(places: Iterable[Picture | Named]) -> None:
    """Raises DataError on a place such as rtsp://camera/stream, which is no file; the message holds no password."""
    for place in places:
        if isinstance(place, str | Path) and is_address(str(place)) and not os.path.exists(place):
            raise DataError(
                f"{place} is a network address; only files and folders are indexed: save the stream or download the file first, "
                "for example with: ffmpeg -i ADDRESS -t 3600 -c copy recording.mkv"
            )


def _shards(pattern: str) -> list[Picture | Named]:
    """The files that exist of those that a pattern with braces names: {000..012} and {a,b}."""
    choices = [_choices(part) for part in _BRACES.findall(pattern)]
    total = 1
    for options in choices:
        total *= len(options)
    if not choices or total > _MAX_SHARDS:
        more = f"; it names {total:,} files, more than {_MAX_SHARDS:,}" if choices else ""
        raise DataError(f"{pattern} does not exist{more}; give a folder of pictures, an archive or a video")
    parts = _BRACES.split(pattern)[::2]
    names = ["".join(p for pair in zip(parts, (*chosen, ""), strict=True) for p in pair) for chosen in product(*choices)]
    if not any(os.path.exists(name) for name in names):
        raise DataError(f"none of the {total:,} files of {pattern} exists, such as {names[0]}")
    return list(names)


def _choices(part: str) -> list[str]:
    numbers = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", part)
    if numbers is None:
        return part.split(",")
    first, last = (int(number) for number in numbers.groups())
    if last - first >= _MAX_SHARDS:
        raise DataError(f"{{{part}}} names {last - first + 1:,} files, more than {_MAX_SHARDS:,}")
    width = len(numbers[1]) if numbers[1].startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(first, last + 1)]


def _of_list(entries: Sequence[Picture | Named], metadata: Sequence[Mapping[str, Any]] | None) -> Sources:
    if not entries:
        raise DataError("there is no picture to index: the list is empty")
    if metadata is not None and len(metadata) != len(entries):
        raise DataError(f"{len(entries)} pictures but {len(metadata)} metadata mappings; give one for each picture")
    rows = metadata if metadata is not None else [{}] * len(entries)
    found = _Found()
    for number, (entry, columns) in enumerate(zip(entries, rows, strict=True)):
        if isinstance(entry, Image.Image):
            found.pictures.append(Candidate(f"picture-{number:06d}", "", entry, columns))
        elif isinstance(entry, Named):
            found.file(entry.name, None, entry.file, columns, entry.admission)
        elif os.path.isdir(entry):
            found.join(_of_folder(Path(entry), None))
        else:
            path = Path(entry).absolute()
            found.file(path.name, path.parent, path, columns)
    return found.sources()


def _of_folder(folder: Path, metadata: Path | None) -> Sources:
    root = Path(os.path.realpath(folder))
    if metadata is not None and not os.path.isfile(metadata):
        raise DataError(f"metadata file {metadata} does not exist")
    file = metadata or root / METADATA_FILE
    found = _Found()
    unread: list[Failure] = []
    names = sorted(_walk(root, root, unread))
    if file.is_file():
        _name_by(file, root, names, found)
    else:
        found.failed += unread
        for name in names:
            found.file(name, root, root / name, {})
    if not (found.pictures or found.videos or found.failed):
        what = f"{file} names no picture" if file.is_file() else f"{folder} holds no picture ({_KNOWN})"
        raise DataError(f"{what}; give a folder of pictures, an archive or a video")
    return found.sources()


class _Found:
    """Gathers what is found, archives looked into."""

    def __init__(self) -> None:
        self.pictures: list[Candidate] = []
        self.videos: list[Candidate] = []
        self.failed: list[Failure] = []
        self.notes: list[str] = []

    def file(
        self, name: str, root: Path | None, path: Path, columns: Mapping[str, Any], admission: Admission | None = None
    ) -> None:
        """root: None where it is not kept."""
        kept = "" if root is None else str(root)
        if is_archive(name):
            self._archive(Candidate(name, kept, path, columns, admission), path)
        elif PurePosixPath(name).suffix.lower() in VIDEOS:
            self.videos.append(Candidate(name, kept, path, columns))
        else:
            self.pictures.append(Candidate(name, kept, path, columns, admission))

    def join(self, other: Sources) -> None:
        self.pictures += other.candidates
        self.videos += other.videos
        self.failed += other.failed
        self.notes += other.notes

    def sources(self) -> Sources:
        return Sources(tuple(self.pictures), tuple(self.failed), tuple(self.notes), tuple(self.videos))

    def _archive(self, whole: Candidate, path: Path) -> None:
        name, contents = whole.name, list_archive(path)
        for picture in contents.pictures:
            columns = {**whole.columns, **picture.columns}
            place = Member(path, picture.number)
            self.pictures.append(replace(whole, name=f"{name}/{picture.name}", picture=place, columns=columns))
        self.failed += [(f"{name}/{member}" if member else name, reason) for member, reason in contents.failed]
        self.notes += [f"{name}: {note}" for note in contents.notes]
        if not contents.pictures and not contents.failed:
            self.failed.append((name, f"holds no picture ({', '.join(sorted(PICTURES))})"))


def _name_by(file: Path, root: Path, names: Sequence[str], found: _Found) -> None:
    """The pictures that a metadata file names, and every video and archive of the folder, named or not."""
    lines: dict[Path, int] = {}
    for row in read_metadata(file):
        try:
            path = resolve_inside(root, row.file_name)
        except AnnotationError as error:
            found.failed.append((row.file_name, f"line {row.line}: {error}"))
            continue
        if path in lines:
            reason = f"line {row.line}: already named in line {lines[path]}, whose metadata are kept"
            found.failed.append((row.file_name, reason))
        elif not os.path.isfile(path):  # Path.is_file raises on a name too long for the disk
            found.failed.append((row.file_name, f"line {row.line}: there is no such file"))
        else:
            lines[path] = row.line
            found.file(path.relative_to(root).as_posix(), root, path, row.columns)
    unnamed = [name for name in names if root / name not in lines]
    others = [name for name in unnamed if is_archive(name) or Path(name).suffix.lower() in VIDEOS]
    for name in others:
        found.file(name, root, root / name, {})
    if left_out := len(unnamed) - len(others):
        found.notes.append(f"{left_out} pictures of the folder are not named in {file.name} and were left out")


def _walk(folder: Path, root: Path, failed: list[Failure]) -> Iterator[str]:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        if folder == root:
            raise DataError(f"{folder} cannot be read ({error.strerror})") from error
        failed.append((folder.relative_to(root).as_posix(), f"cannot be read ({error.strerror})"))
        return
    if any(entry.name == MANIFEST_FILE for entry in entries):  # a gallery holds no photographs
        return
    for entry in entries:
        name = Path(entry.path).relative_to(root).as_posix()
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), root, failed)
        elif entry.is_symlink() and entry.is_dir():
            failed.append((name, "is a link to a folder, which is not followed; index that folder itself"))
        elif Path(entry.name).suffix.lower() in PICTURES | VIDEOS or is_archive(entry.name):
            if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(root):
                failed.append((name, "is a link that leads out of the folder; copy the file instead"))
            else:
                yield name
