"""What there is to index: a folder, a folder with a `metadata.jsonl`, archives, videos, or a list of files and pictures."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image

from tbps.errors import AnnotationError, DataError
from tbps.gallery.encoder import Picture
from tbps.gallery.ingest.archives import Member, list_archive
from tbps.gallery.ingest.folders import EXCLUDED, Failure, LeftOut, refusal_of, walk
from tbps.gallery.ingest.patterns import Patterns
from tbps.gallery.suffixes import Kind, is_video, kind_of, suffix_of
from tbps.preprocess.formats import HEAD, NAMES, OTHER_PICTURES, picture_format, unread_reason
from tbps.preprocess.metadata import METADATA_FILE, read_metadata, resolve_inside
from tbps.redact import is_address

_KNOWN = f"{NAMES}; tar, zip; videos"
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


@dataclass(frozen=True, slots=True)
class Candidate:
    """One picture or video: `name` below `root` for a file ("a.tar/1.jpg" in an archive), `picture` its place or itself.

    described: whether a metadata line, object or mapping of its own says what is in `columns`.
    """

    name: str
    root: str
    picture: Path | Member | Image.Image
    columns: Mapping[str, Any] = field(default_factory=dict)
    admission: Admission | None = None
    described: bool = False


@dataclass(frozen=True, slots=True)
class Sources:
    """Pictures and videos in a fixed order, what is already known to fail with the reason, and remarks.

    left_out: how many of what kind, with an example. folders: those that were gone through whole; members: the pictures of each
    archive that was listed to its end, by its path.
    """

    candidates: tuple[Candidate, ...]
    failed: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    videos: tuple[Candidate, ...] = ()
    left_out: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    members: Mapping[str, frozenset[str]] = field(default_factory=dict)


def find_sources(
    images: str | Path | Iterable[Picture | Named],
    metadata: str | Path | Sequence[Mapping[str, Any]] | None,
    exclude: Sequence[str] = (),
) -> Sources:
    """Every picture and video of a folder and its subfolders by name, archives looked into; or those of a list.

    A `metadata.jsonl` of the folder names its pictures; lines may also give columns to a video or to all pictures of an archive.
    "shard-{000..012}.tar" is a list of files. Hidden files and folders, the bookkeeping of systems, other galleries and what the
    patterns `exclude` name (see `patterns`) are left out and counted; links that lead nowhere or out of the folder fail by name.
    `metadata` is another file in place of the folder's own, or one mapping for each entry of a list.
    Raises DataError when there is nothing to index or a network address is given, AnnotationError on a malformed metadata file.
    """
    refuse_addresses([images] if isinstance(images, str | Path | Image.Image) else (images := list(images)))
    patterns = Patterns(exclude)
    found = _found(images, metadata, patterns)
    unused = [f"--exclude {pattern!r} matched nothing" for pattern in patterns.unused]
    return replace(found, notes=(*found.notes, *_unread(found.failed), *unused))


def _found(
    images: str | Path | Iterable[Picture | Named], metadata: str | Path | Sequence[Mapping[str, Any]] | None, exclude: Patterns
) -> Sources:
    if isinstance(images, str | Path) and os.path.isdir(images):
        if metadata is not None and not isinstance(metadata, str | Path):
            raise DataError("a folder takes its metadata from a file; pass its path, or pass the pictures as a list")
        return _of_folder(Path(images), None if metadata is None else Path(metadata), exclude)
    if isinstance(images, str | Path):
        images = [images] if os.path.lexists(images) else _shards(str(images))
    if isinstance(metadata, str | Path):
        raise DataError(
            f"the names in {metadata} are relative to a folder; index that folder, or pass one mapping for each picture of the list"
        )
    return _of_list(list(images), metadata, exclude)


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


def _of_list(entries: Sequence[Picture | Named], metadata: Sequence[Mapping[str, Any]] | None, exclude: Patterns) -> Sources:
    if not entries:
        raise DataError("there is no picture to index: the list is empty")
    if metadata is not None and len(metadata) != len(entries):
        raise DataError(f"{len(entries)} pictures but {len(metadata)} metadata mappings; give one for each picture")
    rows = metadata if metadata is not None else [{}] * len(entries)
    described = metadata is not None
    found = _Found(exclude)
    for number, (entry, columns) in enumerate(zip(entries, rows, strict=True)):
        if isinstance(entry, Image.Image):
            found.pictures.append(Candidate(f"picture-{number:06d}", "", entry, columns, described=described))
        elif isinstance(entry, Named):
            found.file(Candidate(entry.name, "", entry.file, columns, entry.admission, described), named=True)
        elif os.path.isdir(entry):
            found.join(_of_folder(Path(entry), None, exclude))
        else:
            path = Path(entry).absolute()
            found.file(Candidate(path.name, str(path.parent), path, columns, described=described), named=True)
    return found.sources()


def _of_folder(folder: Path, metadata: Path | None, exclude: Patterns) -> Sources:
    root = Path(os.path.realpath(folder))
    if metadata is not None and not os.path.isfile(metadata):
        raise DataError(f"metadata file {metadata} does not exist")
    file = metadata or root / METADATA_FILE
    found = _Found(exclude)
    there = walk(root, exclude)
    found.folders.append(str(root))
    found.left_out.join(there.left_out.found)
    if file.is_file():
        _name_by(file, root, there.files, found)
        named = {candidate.name for candidate in (*found.pictures, *found.videos)} | {name for name, _ in found.failed}
        found.failed += [failure for failure in there.failed if failure[0] not in named]
    else:
        found.failed += there.failed
        for name in there.files:
            found.file(Candidate(name, str(root), root / name))
    if not (found.pictures or found.videos or found.failed):
        left_out = "; " * bool(found.left_out.found) + told_left_out(found.left_out.found)
        what = f"{file} names no picture" if file.is_file() else f"{folder} holds no picture ({_KNOWN})"
        raise DataError(f"{what}; give a folder of pictures, an archive or a video{left_out}")
    return found.sources()


def told_left_out(left_out: Mapping[str, tuple[int, str]]) -> str:
    """What was left out, for a message; empty where nothing was."""
    parts = [f"{kind} ({count:,}, such as {example})" for kind, (count, example) in sorted(left_out.items())]
    return f"left out: {'; '.join(parts)}" if parts else ""


class _Found:
    """Gathers what is found, archives looked into."""

    def __init__(self, exclude: Patterns) -> None:
        self.exclude = exclude
        self.pictures: list[Candidate] = []
        self.videos: list[Candidate] = []
        self.failed: list[Failure] = []
        self.notes: list[str] = []
        self.left_out = LeftOut()
        self.folders: list[str] = []
        self.members: dict[str, frozenset[str]] = {}

    def file(self, whole: Candidate, named: bool = False) -> None:
        """Takes the file of a candidate for what it is. named: by a metadata file or the user, so that it must be something."""
        name, path = whole.name, whole.picture
        assert isinstance(path, Path)
        if self.exclude.match_below(name):
            self.left_out.add(EXCLUDED, name)
            return
        kind = _kind(name, path, named)
        if kind == "archive":
            self._archive(whole, path)
        elif kind == "video":
            self.videos.append(whole)
        elif kind == "other picture":
            self.failed.append((name, unread_reason(suffix_of(name))))
        elif kind == "picture":
            self.pictures.append(whole)
        elif name != METADATA_FILE:
            self.left_out.no_picture(name)

    def join(self, other: Sources) -> None:
        self.pictures += other.candidates
        self.videos += other.videos
        self.failed += other.failed
        self.notes += other.notes
        self.folders += other.folders
        self.members |= other.members
        self.left_out.join(other.left_out)

    def sources(self) -> Sources:
        return Sources(
            tuple(self.pictures),
            tuple(self.failed),
            tuple(self.notes),
            tuple(self.videos),
            self.left_out.found,
            tuple(self.folders),
            self.members,
        )

    def _archive(self, whole: Candidate, path: Path) -> None:
        name = whole.name
        if (reason := refusal_of(path)) is not None:  # a pipe would be waited for
            self.failed.append((name, reason))
            return
        contents = list_archive(path)
        taken = [picture for picture in contents.pictures if not self.exclude.match_below(f"{name}/{picture.name}")]
        for picture in taken:
            columns = {**whole.columns, **picture.columns}
            place, described = Member(path, picture.number), whole.described or picture.described
            self.pictures.append(replace(whole, name=f"{name}/{picture.name}", picture=place, columns=columns, described=described))
        if len(taken) < len(contents.pictures):
            self.left_out.add(EXCLUDED, name, len(contents.pictures) - len(taken))
        self.failed += [(f"{name}/{member}" if member else name, reason) for member, reason in contents.failed]
        self.notes += [f"{name}: {note}" for note in contents.notes]
        self.left_out.join({kind: (n, f"{name}/{example}") for kind, (n, example) in contents.left_out.found.items()})
        if contents.members is not None and whole.root:
            self.members[f"{whole.root}/{name}"] = contents.members
        if not contents.pictures and not contents.failed:
            self.failed.append((name, f"holds no picture ({NAMES})"))


def _kind(name: str, path: Path, named: bool) -> Kind | None:
    """What a file is: by its name, and by its first bytes where that says nothing or something else.

    Raw photographs are TIFF files, of which a reader of TIFF would show a small preview.
    """
    kind = kind_of(name)
    if kind in ("picture", "archive"):
        return kind
    if refusal_of(path) is not None:
        return kind or "picture"  # which fails with the reason
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return kind or "picture"
    form = picture_format(head)
    if form is not None and (kind != "other picture" or form != "TIFF"):
        return "picture"
    return kind or ("video" if is_video(head) else "picture" if named else None)


def _unread(failed: Sequence[Failure]) -> list[str]:
    """How many pictures of which format are not read, and the way out."""
    endings = Counter(suffix_of(name) for name, reason in failed if reason == unread_reason(suffix_of(name)))
    endings = Counter({ending: count for ending, count in endings.items() if ending in OTHER_PICTURES})
    if not endings:
        return []
    counted = ", ".join(f"{count:,} {ending}" for ending, count in sorted(endings.items()))
    return [f"pictures of formats that are not read: {counted}; save them as JPEG or PNG and index again"]


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
            name = path.relative_to(root).as_posix()
            if not found.exclude.match_below(name):  # what is excluded was counted on the way through the folder
                found.file(Candidate(name, str(root), path, row.columns, described=True), named=True)
    unnamed = [name for name in names if root / name not in lines and root / name != file]
    kinds = {name: kind_of(name) for name in unnamed}
    for name in unnamed:
        if kinds[name] in ("video", "archive"):
            found.file(Candidate(name, str(root), root / name))
        elif kinds[name] is None and name != METADATA_FILE:
            found.left_out.no_picture(name)
    if left_out := sum(kind in ("picture", "other picture") for kind in kinds.values()):
        found.notes.append(f"{left_out} pictures of the folder are not named in {file.name} and were left out")
