"""Pictures in archives: tar (plain, gzip, bzip2, xz, zstd) and zip, read member by member without unpacking to disk.

An archive is read twice: `list_archive` reads the names and metadata of its members, `read_members` the pictures in the same order.
Metadata are a `metadata.jsonl` in the archive (names relative to its own folder), or one JSON object per picture as in WebDataset
shards: `0001.json` for `0001.jpg`. Captions (`0001.txt`) are left out, since a gallery holds none.

Hidden members, files of operating systems and files that are not pictures are left out and counted. Names of members are never used
as paths. `containers` limits the resources that a hostile archive can take.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from tbps.errors import AnnotationError
from tbps.gallery.ingest.sources.containers import NOT_A_FILE, Entry, RefusedError, entries
from tbps.gallery.ingest.sources.folders import Failure, LeftOut, unwanted
from tbps.gallery.ingest.sources.unpacking import EndedError
from tbps.gallery.suffixes import kind_of, suffix_of
from tbps.preprocess.formats import unread_reason
from tbps.preprocess.image import MAX_FILE_BYTES
from tbps.preprocess.metadata import JSON, METADATA_FILE, parse_columns, parse_metadata
from tbps.preprocess.names import composed

MAX_METADATA_BYTES = 256 * 2**20  # of one archive in total
_NAME_LENGTH = 1000
_SIDECARS = (".txt", ".cls")  # of WebDataset: captions and classes


@dataclass(frozen=True, slots=True)
class Member:
    """A picture in an archive, by the number of its entry from 0."""

    archive: Path
    number: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A picture of an archive. name: normalised; number: that of its entry; described: whether it has metadata of its own."""

    name: str
    number: int
    columns: Mapping[str, JSON]
    described: bool = False


@dataclass(frozen=True, slots=True)
class Contents:
    """Contents of an archive.

    pictures: in the archive's order; failed: (name of a member or "" for the archive itself, reason); members: the names of all
    pictures, including those that the metadata do not name; None when the archive could not be read to its end.
    """

    pictures: tuple[Listed, ...]
    failed: tuple[Failure, ...]
    notes: tuple[str, ...]
    left_out: LeftOut
    members: frozenset[str] | None


def list_archive(archive: Path) -> Contents:
    """Lists the pictures of an archive with their metadata, up to any damage, which is reported in `failed` and not raised."""
    found = _Listing()
    ended: Failure | None = None
    try:
        for entry in entries(archive):
            found.add(entry)
    except EndedError as error:
        kept = f"; the {len(found.pictures):,} pictures before that are kept" if found.pictures else ""
        ended = ("", f"{error}{kept}")
    found.failed += [] if ended is None else [ended]
    members = None if ended else frozenset(found.pictures)
    columns = found.columns
    listed = [Listed(name, number, columns.get(_key(name), {}), _key(name) in columns) for name, number in found.pictures.items()]
    notes: tuple[str, ...] = ()
    if found.lists:
        listed, notes = _choose_named(listed, found.lists, found.failed)
    return Contents(tuple(listed), tuple(found.failed), notes, found.left_out, members)


class _Listing:
    """Collects the entries of an archive.

    pictures: name -> number of the entry; columns: WebDataset key -> metadata; lists: folder -> its metadata.jsonl.
    """

    def __init__(self) -> None:
        self.pictures: dict[str, int] = {}
        self.columns: dict[str, dict[str, JSON]] = {}
        self.lists: dict[str, bytes] = {}
        self.failed: list[Failure] = []
        self.left_out = LeftOut()
        self._left = MAX_METADATA_BYTES

    def add(self, entry: Entry) -> None:
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
                self.left_out.add_unknown(name)
            return
        twice = "appears twice; the first of them is kept" if name in self.pictures else None
        if (refusal := entry.refusal or _name_refusal(entry.name) or twice) is not None:
            self.failed.append((entry.name, refusal))
        elif is_metadata:
            self._add_metadata(entry, name)
        elif what == "picture":
            self.pictures[name] = entry.number
        elif what == "other picture":
            self.failed.append((name, unread_reason(suffix_of(name))))
        else:
            thing = "a video" if what == "video" else "an archive"
            self.failed.append((name, f"is {thing} inside an archive, which is not opened; index it by itself"))

    def _add_metadata(self, entry: Entry, name: str) -> None:
        """Reads a `metadata.jsonl`, or the JSON object of one picture."""
        try:
            content = entry.read(self._left)
            self._left -= len(content)
            if PurePosixPath(name).name == METADATA_FILE:
                self.lists[str(PurePosixPath(name).parent)] = content
            else:
                self.columns[_key(name)] = parse_columns(content, name)
        except (AnnotationError, RefusedError) as error:
            self.failed.append((name, str(error).removeprefix(f"{name}: ")))


def read_members(archive: Path, numbers: Sequence[int], limit: int | None = None) -> Iterator[bytes | str]:
    """Yields the bytes of entries, or as a text the reason why an entry cannot be read. numbers: ascending.

    limit: the largest entry that is read, MAX_FILE_BYTES by default and at most.
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


def _choose_named(
    pictures: Sequence[Listed], lists: Mapping[str, bytes], failed: list[Failure]
) -> tuple[list[Listed], tuple[str, ...]]:
    """The pictures that the metadata.jsonl files name, with the columns of their lines; and a note on the other pictures."""
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
                    failed.append((row.file_name, f"line {row.line}: already named in an earlier line, whose metadata are kept"))
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
    """A member's name without "./" and repeated slashes."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _key(name: str) -> str:
    """WebDataset's key: the name up to the first dot of its last part."""
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
