"""Finds the pictures and videos to index: in folders, archives, metadata files, and lists of files and pictures."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from tbps.errors import AnnotationError, DataError
from tbps.gallery.encoder import Picture
from tbps.gallery.ingest.sources.archives import Member, list_archive
from tbps.gallery.ingest.sources.candidates import Candidate, Named, Sources
from tbps.gallery.ingest.sources.clean_columns import ColumnCleaner
from tbps.gallery.ingest.sources.folders import EXCLUDED, Failure, LeftOut, describe_left_out, refusal_of, walk
from tbps.gallery.ingest.sources.patterns import Patterns
from tbps.gallery.ingest.sources.shards import expand_braces
from tbps.gallery.suffixes import FileKind, is_video, kind_of, suffix_of
from tbps.preprocess.formats import HEAD, NAMES, OTHER_PICTURES, picture_format, unread_reason
from tbps.preprocess.metadata import METADATA_FILE, read_metadata, resolve_inside
from tbps.redact import is_address

_READABLE = f"{NAMES}; tar, zip; videos"


def find_sources(
    images: str | Path | Iterable[Picture | Named],
    metadata: str | Path | Sequence[Mapping[str, Any]] | None,
    exclude: Sequence[str] = (),
    camera: str | None = None,
) -> Sources:
    """Finds every picture and video of a folder and its subfolders in order of name, archives included; or those of a list.

    A `metadata.jsonl` of the folder chooses its pictures; its lines may also give columns to a video, or to all pictures of an
    archive. `metadata` is another file in its place, or one mapping per entry of a list. `images` may be a brace pattern such as
    "shard-{000..012}.tar". Left out, and counted: hidden files and folders, files of operating systems, other galleries, and what
    the patterns `exclude` match (see `patterns`). Broken links and links out of the folder are in `failed`.

    The columns in the result are final: `camera` is set where a candidate's metadata name none, and passwords of addresses are
    removed.

    Raises DataError when there is nothing to index or a network address is given, AnnotationError on a malformed metadata file.
    """
    refuse_addresses([images] if isinstance(images, str | Path | Image.Image) else (images := list(images)))
    found = _Found(Patterns(exclude))
    if isinstance(images, str | Path) and os.path.isdir(images):
        if metadata is not None and not isinstance(metadata, str | Path):
            raise DataError("a folder takes its metadata from a file; pass its path, or pass the pictures as a list")
        found.add_folder(Path(images), None if metadata is None else Path(metadata))
    else:
        if isinstance(images, str | Path):
            images = [images] if os.path.lexists(images) else expand_braces(str(images))
        if isinstance(metadata, str | Path):
            raise DataError(
                f"the names in {metadata} are relative to a folder; index that folder, or pass one mapping for each picture of the "
                "list"
            )
        found.add_list(list(images), metadata)
    return found.sources(ColumnCleaner(camera))


def refuse_addresses(places: Iterable[Picture | Named]) -> None:
    """Raises DataError on a network address such as rtsp://camera/stream, with a message that holds no password."""
    for place in places:
        if isinstance(place, str | Path) and is_address(str(place)) and not os.path.exists(place):
            raise DataError(
                f"{place} is a network address; only files and folders are indexed: save the stream or download the file first, "
                "for example with: ffmpeg -i ADDRESS -t 3600 -c copy recording.mkv"
            )


class _Found:
    """Collects candidates; opens the archives among them."""

    def __init__(self, exclude: Patterns) -> None:
        self.exclude = exclude
        self.pictures: list[Candidate] = []
        self.videos: list[Candidate] = []
        self.failed: list[Failure] = []
        self.notes: list[str] = []
        self.left_out = LeftOut()
        self.folders: list[str] = []
        self.members: dict[str, frozenset[str]] = {}

    def sources(self, cleaner: ColumnCleaner) -> Sources:
        candidates, videos = cleaner.clean(self.pictures), cleaner.clean(self.videos)
        unused = [f"--exclude {pattern!r} matched nothing" for pattern in self.exclude.unused]
        notes = (*self.notes, *_unread_formats(self.failed), *unused, *cleaner.notes)
        folders = tuple(self.folders)
        return Sources(candidates, tuple(self.failed), notes, videos, self.left_out.found, folders, self.members)

    def add_list(self, entries: Sequence[Picture | Named], metadata: Sequence[Mapping[str, Any]] | None) -> None:
        """Adds the entries of a list; metadata: one mapping per entry. Raises DataError when the numbers differ."""
        if not entries:
            raise DataError("there is no picture to index: the list is empty")
        if metadata is not None and len(metadata) != len(entries):
            raise DataError(f"{len(entries)} pictures but {len(metadata)} metadata mappings; give one for each picture")
        rows = metadata if metadata is not None else [{}] * len(entries)
        described = metadata is not None
        for number, (entry, columns) in enumerate(zip(entries, rows, strict=True)):
            if isinstance(entry, Image.Image):
                self.pictures.append(Candidate(f"picture-{number:06d}", "", entry, columns, described=described))
            elif isinstance(entry, Named):
                self.add_file(Candidate(entry.name, "", entry.file, columns, entry.admission, described), named=True)
            elif os.path.isdir(entry):
                folder = _Found(self.exclude)
                folder.add_folder(Path(entry), None)
                self._join(folder)
            else:
                path = Path(entry).absolute()
                self.add_file(Candidate(path.name, str(path.parent), path, columns, described=described), named=True)

    def add_folder(self, folder: Path, metadata: Path | None) -> None:
        """Adds the files below a folder, or those that its metadata file names. Raises DataError when there are none."""
        root = Path(os.path.realpath(folder))
        if metadata is not None and not os.path.isfile(metadata):
            raise DataError(f"metadata file {metadata} does not exist")
        file = metadata or root / METADATA_FILE
        below = walk(root, self.exclude)
        self.folders.append(str(root))
        self.left_out.join(below.left_out.found)
        if file.is_file():
            named = self._add_named(file, root, below.files)
            self.failed += [failure for failure in below.failed if failure[0] not in named]
        else:
            self.failed += below.failed
            for name in below.files:
                self.add_file(Candidate(name, str(root), root / name))
        if not (self.pictures or self.videos or self.failed):
            left_out = describe_left_out(self.left_out.found)
            what = f"{file} names no picture" if file.is_file() else f"{folder} holds no picture ({_READABLE})"
            raise DataError(f"{what}; give a folder of pictures, an archive or a video{f'; {left_out}' if left_out else ''}")

    def add_file(self, candidate: Candidate, named: bool = False) -> None:
        """Adds the file of a candidate by its kind.

        named: whether a metadata file or the user names it; a file of unknown kind is then read as a picture, and fails with the
        reason.
        """
        name, path = candidate.name, candidate.picture
        assert isinstance(path, Path)
        if self.exclude.match_below(name):
            self.left_out.add(EXCLUDED, name)
            return
        kind = _kind(name, path, named)
        if kind == "archive":
            self._add_archive(candidate, path)
        elif kind == "video":
            self.videos.append(candidate)
        elif kind == "other picture":
            self.failed.append((name, unread_reason(suffix_of(name))))
        elif kind == "picture":
            self.pictures.append(candidate)
        elif name != METADATA_FILE:
            self.left_out.add_unknown(name)

    def _join(self, other: "_Found") -> None:
        self.pictures += other.pictures
        self.videos += other.videos
        self.failed += other.failed
        self.notes += other.notes
        self.folders += other.folders
        self.members |= other.members
        self.left_out.join(other.left_out.found)

    def _add_archive(self, archive: Candidate, path: Path) -> None:
        name = archive.name
        if (reason := refusal_of(path)) is not None:  # opening a pipe would wait for its writer
            self.failed.append((name, reason))
            return
        contents = list_archive(path)
        kept = [picture for picture in contents.pictures if not self.exclude.match_below(f"{name}/{picture.name}")]
        for picture in kept:
            columns = {**archive.columns, **picture.columns}
            member, described = Member(path, picture.number), archive.described or picture.described
            self.pictures.append(
                replace(archive, name=f"{name}/{picture.name}", picture=member, columns=columns, described=described)
            )
        if len(kept) < len(contents.pictures):
            self.left_out.add(EXCLUDED, name, len(contents.pictures) - len(kept))
        self.failed += [(f"{name}/{member}" if member else name, reason) for member, reason in contents.failed]
        self.notes += [f"{name}: {note}" for note in contents.notes]
        self.left_out.join({kind: (n, f"{name}/{example}") for kind, (n, example) in contents.left_out.found.items()})
        if contents.members is not None and archive.root:
            self.members[f"{archive.root}/{name}"] = contents.members
        if not contents.pictures and not contents.failed:
            self.failed.append((name, f"holds no picture ({NAMES})"))

    def _add_named(self, file: Path, root: Path, names: Sequence[str]) -> set[str]:
        """Adds the files that a metadata file names, and every video and archive of the folder; returns all these names."""
        lines: dict[Path, int] = {}
        seen: set[str] = set()
        for line in read_metadata(file):
            reason: str | None = None
            try:
                path = resolve_inside(root, line.file_name)
            except AnnotationError as error:
                path, reason = root, str(error)
            if reason is None and path in lines:
                reason = f"already named in line {lines[path]}, whose metadata are kept"
            elif reason is None and not os.path.isfile(path):  # Path.is_file raises on a name too long for the disk
                reason = "there is no such file"
            if reason is not None:
                seen.add(line.file_name)
                self.failed.append((line.file_name, f"line {line.line}: {reason}"))
                continue
            lines[path] = line.line
            name = path.relative_to(root).as_posix()
            seen.add(name)
            if not self.exclude.match_below(name):  # excluded files were counted during the walk
                self.add_file(Candidate(name, str(root), path, line.columns, described=True), named=True)
        self._add_unnamed(file, root, [name for name in names if root / name not in lines and root / name != file])
        return seen

    def _add_unnamed(self, file: Path, root: Path, names: Sequence[str]) -> None:
        """Adds the videos and archives that a folder's metadata file does not name, and counts its other files."""
        kinds = {name: kind_of(name) for name in names}
        for name, kind in kinds.items():
            if kind in ("video", "archive"):
                self.add_file(Candidate(name, str(root), root / name))
            elif kind is None and name != METADATA_FILE:
                self.left_out.add_unknown(name)
        if left_out := sum(kind in ("picture", "other picture") for kind in kinds.values()):
            self.notes.append(f"{left_out} pictures of the folder are not named in {file.name} and were left out")


def _kind(name: str, path: Path, named: bool) -> FileKind | None:
    """The kind of a file by its name, and by its first bytes if its suffix is unknown or misleading.

    Raw photographs begin as TIFF files do, but a reader of TIFF would only return a small preview.
    """
    kind = kind_of(name)
    if kind in ("picture", "archive"):
        return kind
    if refusal_of(path) is not None:
        return kind or "picture"  # reading it fails with the reason
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return kind or "picture"
    form = picture_format(head)
    if form is not None and (kind != "other picture" or form != "TIFF"):
        return "picture"
    return kind or ("video" if is_video(head) else "picture" if named else None)


def _unread_formats(failed: Sequence[Failure]) -> list[str]:
    """A note that counts pictures of formats that are not read."""
    endings = Counter(suffix_of(name) for name, reason in failed if reason == unread_reason(suffix_of(name)))
    endings = Counter({ending: count for ending, count in endings.items() if ending in OTHER_PICTURES})
    if not endings:
        return []
    counted = ", ".join(f"{count:,} {ending}" for ending, count in sorted(endings.items()))
    return [f"pictures of formats that are not read: {counted}; save them as JPEG or PNG and index again"]
