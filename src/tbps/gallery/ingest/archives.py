"""Pictures inside archives: tar (plain, gzip, bzip2, xz, zstd) and zip, read member by member; nothing is ever unpacked to disk.

An archive is gone through twice: `list_archive` reads the members' names and their metadata, `read_members` the pictures in the
same order. Metadata are a `metadata.jsonl` inside (names relative to its own folder), or one JSON object a picture, as WebDataset
shards have it: `0001.jpg` with `0001.json`. Captions (`0001.txt`) are left out, a gallery holds none.

Hidden members, the bookkeeping of systems and files that are no pictures are left out and counted.

Member names are only names. `containers` bounds what an archive that was made to harm can take.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from tbps.errors import AnnotationError
from tbps.gallery.ingest.containers import NOT_A_FILE, EndedError, Entry, RefusedError, entries
from tbps.gallery.ingest.folders import Failure, LeftOut, unwanted
from tbps.gallery.suffixes import VIDEOS, is_archive, kind_of, suffix_of
from tbps.preprocess.formats import PICTURES, unread_reason
from tbps.preprocess.image import MAX_FILE_BYTES
from tbps.preprocess.metadata import JSON, METADATA_FILE, parse_columns, parse_metadata
from tbps.preprocess.names import composed

__all__ = ["PICTURES", "VIDEOS", "Contents", "Failure", "Listed", "Member", "is_archive", "list_archive", "read_members"]


MAX_METADATA_BYTES = 256 * 2**20  # of one archive, all of it together
_NAME_LENGTH = 1000
_SIDECARS = (".txt", ".cls")  # of WebDataset: captions and classes


@dataclass(frozen=True, slots=True)
class Member:
    """The place of a picture: the `number`-th entry of an archive."""

    archive: Path
    number: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A picture of an archive, its name made plain, and the columns of its metadata. described: whether it has any."""

    name: str
    number: int
    columns: Mapping[str, JSON]
    described: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """The pictures in the archive's order, what cannot be used with the reason, remarks, and what is left out.

    Names are those of the members; a failure without a name is of the archive itself. members: the names of all pictures, also of
    those that its metadata do not name; None where the archive could not be read to its end.
    """

    pictures: tuple[Listed, ...]
    failed: tuple[Failure, ...]
    notes: tuple[str, ...]
    left_out: LeftOut
    members: frozenset[str] | None


def list_archive(archive: Path) -> Contents:
    """The pictures of an archive with their metadata, as far as it can be read. Damage is named, never raised."""
    found = _Listing()
    ended: Failure | None = None
    try:
        for entry in entries(archive):
            found.take(entry)
    except EndedError as error:
        kept = f"; the {len(found.pictures):,} pictures before that are kept" if found.pictures else ""
        ended = ("", f"{error}{kept}")
    found.failed += [] if ended is None else [ended]
    members = None if ended else frozenset(found.pictures)
    columns = found.columns
    listed = [Listed(name, number, columns.get(_key(name), {}), _key(name) in columns) for name, number in found.pictures.items()]
    notes: tuple[str, ...] = ()
    if found.lists:
        listed, notes = _named(listed, found.lists, found.failed)
    return Contents(tuple(listed), tuple(found.failed), notes, found.left_out, members)


class _Listing:
    """What has been found in an archive so far. columns: by WebDataset key; lists: each metadata.jsonl by its folder."""

    def __init__(self) -> None:
        self.pictures: dict[str, int] = {}
        self.columns: dict[str, dict[str, JSON]] = {}
        self.lists: dict[str, bytes] = {}
        self.failed: list[Failure] = []
        self.left_out = LeftOut()
        self._left = MAX_METADATA_BYTES

    def take(self, entry: Entry) -> None:
        name = _plain(entry.name)
        if not name or (entry.refusal == NOT_A_FILE and kind_of(name) is None):
            return
        if (kind := next(filter(None, map(unwanted, name.split("/"))), None)) is not None:
            self.left_out.add(kind, name)
            return
        is_metadata = name.rpartition("/")[2] == METADATA_FILE or suffix_of(name) == ".json"
        what = kind_of(name)
        if not is_metadata and what is None:
            if suffix_of(name) not in _SIDECARS:
                self.left_out.no_picture(name)
            return
        twice = "appears twice; the first of them is kept" if name in self.pictures else None
        if (refusal := entry.refusal or _name_refusal(entry.name) or twice) is not None:
            self.failed.append((entry.name, refusal))
        elif is_metadata:
            wrong, size = _read_metadata(entry, name, self.lists, self.columns, self._left)
            self.failed += wrong
            self._left -= size
        elif what == "picture":
            self.pictures[name] = entry.number
        elif what == "other picture":
            self.failed.append((name, unread_reason(suffix_of(name))))
        else:
            thing = "a video" if what == "video" else "an archive"
            self.failed.append((name, f"is {thing} inside an archive, which is not opened; index it by itself"))


def _read_metadata(
    entry: Entry, name: str, lists: dict[str, bytes], columns: dict[str, dict[str, JSON]], limit: int
) -> tuple[list[Failure], int]:
    """Reads a `metadata.jsonl` or one picture's JSON; what is wrong with it, and its size."""
    content = b""
    try:
        content = entry.read(limit)
        if PurePosixPath(name).name == METADATA_FILE:
            lists[str(PurePosixPath(name).parent)] = content
        else:
            columns[_key(name)] = parse_columns(content, name)
    except (AnnotationError, RefusedError) as error:
        return [(name, str(error).removeprefix(f"{name}: "))], len(content)
    return [], len(content)


def read_members(archive: Path, numbers: Sequence[int], limit: int | None = None) -> Iterator[bytes | str]:
    """The bytes of entries, in ascending order of their numbers; text in place of bytes says why one cannot be read.

    limit: the most bytes of one, MAX_FILE_BYTES if none is given.
    """
    limit = MAX_FILE_BYTES if limit is None else min(limit, MAX_FILE_BYTES)
    wanted = iter(numbers)
    number, left = next(wanted, None), len(numbers)
    reason = "is no longer there: the archive was changed while it was read"
    try:
        for entry in entries(archive):
            if number is None:
                return
            if entry.number == number:
                try:
                    content: bytes | str = entry.read(limit)
                except RefusedError as error:
                    content = str(error)
                number, left = next(wanted, None), left - 1
                yield content
    except EndedError as error:
        reason = f"cannot be read: the archive {error}"
    yield from [reason] * left


def _named(pictures: Sequence[Listed], lists: Mapping[str, bytes], failed: list[Failure]) -> tuple[list[Listed], tuple[str, ...]]:
    """The pictures that the metadata.jsonl files name, with the columns of their lines, and a remark on the others."""
    by_name = {composed(picture.name): picture for picture in reversed(pictures)}
    by_name |= {picture.name: picture for picture in pictures}
    chosen: dict[str, Listed] = {}
    for folder, content in lists.items():
        name = str(PurePosixPath(folder) / METADATA_FILE)
        try:
            for row in parse_metadata(content, name):
                named = _plain(str(PurePosixPath(folder) / row.file_name))
                target = named if named in by_name else composed(named or "")
                if (refusal := _name_refusal(row.file_name)) is not None:
                    failed.append((row.file_name, f"line {row.line}: {refusal}"))
                elif (picture := by_name.get(target)) is None:
                    failed.append((row.file_name, f"line {row.line}: there is no such member"))
                elif picture.name in chosen:
                    failed.append((row.file_name, f"line {row.line}: already named, whose metadata are kept"))
                else:
                    columns = {**picture.columns, **row.columns}
                    chosen[picture.name] = Listed(picture.name, picture.number, columns, described=True)
        except AnnotationError as error:
            failed.append((name, str(error).removeprefix(f"{name}: ")))
    unnamed = len(pictures) - len(chosen)
    note = f"{unnamed} pictures are not named in its {METADATA_FILE} and were left out"
    ordered = sorted(chosen.values(), key=lambda picture: picture.number)
    return ordered, (note,) if unnamed else ()


def _plain(name: str) -> str:
    """A member's name without "./" and doubled slashes."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _key(name: str) -> str:
    """WebDataset's key: everything before the first dot of the last part."""
    folder, _, base = composed(name).rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"


def _name_refusal(name: str) -> str | None:
    if not name.strip() or "\0" in name or len(name) > _NAME_LENGTH:
        return f"its name is empty, has a zero byte or more than {_NAME_LENGTH:,} characters"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8 text and cannot be stored"
    slashed = name.replace("\\", "/")
    if PurePosixPath(slashed).is_absolute() or PureWindowsPath(name).drive or ".." in slashed.split("/"):
        return "its name leads out of the archive (absolute, or with '..')"
    return None
