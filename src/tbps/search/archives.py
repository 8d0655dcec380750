"""Pictures inside archives: tar (plain, gzip, bzip2, xz, zstd) and zip, read member by member; nothing is ever unpacked to disk.

An archive is gone through twice: `list_archive` reads the members' names and their metadata, `read_members` the pictures in the
same order. Metadata are a `metadata.jsonl` inside (names relative to its own folder), or one JSON object a picture, as WebDataset
shards have it: `0001.jpg` with `0001.json`. Captions (`0001.txt`) are left out, a gallery holds none.

Member names are only names. `containers` bounds what an archive that was made to harm can take.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from tbps.errors import AnnotationError
from tbps.preprocess.image import MAX_FILE_BYTES
from tbps.preprocess.metadata import JSON, METADATA_FILE, parse_columns, parse_metadata
from tbps.search.containers import EndedError, Entry, RefusedError, entries

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip")
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
OTHER_PICTURES = frozenset(
    {".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".ico", ".dng", ".cr2", ".nef", ".arw"}
)
VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"})

MAX_METADATA_BYTES = 256 * 2**20  # of one archive, all of it together
_NAME_LENGTH = 1000

Failure = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Member:
    """The place of a picture: the `number`-th entry of an archive."""

    archive: Path
    number: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A picture of an archive, its name made plain, and the columns of its metadata."""

    name: str
    number: int
    columns: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Contents:
    """The pictures in the archive's order, what cannot be used with the reason, and remarks.

    Names are those of the members; a failure without a name is of the archive itself.
    """

    pictures: tuple[Listed, ...]
    failed: tuple[Failure, ...]
    notes: tuple[str, ...]


def is_archive(name: str) -> bool:
    """Whether a file's name is one of an archive."""
    return name.lower().endswith(SUFFIXES)


def list_archive(archive: Path) -> Contents:
    """The pictures of an archive with their metadata, as far as it can be read. Damage is named, never raised."""
    pictures: dict[str, int] = {}
    columns: dict[str, dict[str, JSON]] = {}  # by WebDataset key
    lists: dict[str, bytes] = {}  # metadata.jsonl by its folder
    failed: list[Failure] = []
    left = MAX_METADATA_BYTES
    try:
        for entry in entries(archive):
            name = _plain(entry.name)
            if name is None:
                continue
            kind = _kind(name)
            twice = "appears twice; the first of them is kept" if name in pictures else None
            refusal = entry.refusal or _name_refusal(entry.name) or twice
            if kind is not None and refusal is not None:
                failed.append((entry.name, refusal))
            elif kind == "picture":
                pictures[name] = entry.number
            elif kind == "metadata":
                wrong, size = _read_metadata(entry, name, lists, columns, left)
                failed += wrong
                left -= size
            elif kind == "other picture":
                failed.append((name, "is a picture of a format that is not read; save it as JPEG or PNG"))
            elif kind is not None:
                failed.append((name, f"is {kind} inside an archive, which is not opened; index it by itself"))
    except EndedError as error:
        kept = f"; the {len(pictures):,} pictures before that are kept" if pictures else ""
        failed.append(("", f"{error}{kept}"))
    listed = [Listed(name, number, columns.get(_key(name), {})) for name, number in pictures.items()]
    if not lists:
        return Contents(tuple(listed), tuple(failed), ())
    return _named(listed, lists, failed)


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


def _named(pictures: Sequence[Listed], lists: Mapping[str, bytes], failed: list[Failure]) -> Contents:
    """The pictures that the metadata.jsonl files name, with the columns of their lines."""
    by_name = {picture.name: picture for picture in pictures}
    chosen: dict[str, Listed] = {}
    for folder, content in lists.items():
        name = str(PurePosixPath(folder) / METADATA_FILE)
        try:
            for row in parse_metadata(content, name):
                target = _plain(str(PurePosixPath(folder) / row.file_name))
                if (refusal := _name_refusal(row.file_name)) is not None:
                    failed.append((row.file_name, f"line {row.line}: {refusal}"))
                elif target is None or target not in by_name:
                    failed.append((row.file_name, f"line {row.line}: there is no such member"))
                elif target in chosen:
                    failed.append((row.file_name, f"line {row.line}: already named, whose metadata are kept"))
                else:
                    picture = by_name[target]
                    chosen[target] = Listed(target, picture.number, {**picture.columns, **row.columns})
        except AnnotationError as error:
            failed.append((name, str(error).removeprefix(f"{name}: ")))
    unnamed = len(by_name) - len(chosen)
    note = f"{unnamed} pictures are not named in its {METADATA_FILE} and were left out"
    ordered = sorted(chosen.values(), key=lambda picture: picture.number)
    return Contents(tuple(ordered), tuple(failed), (note,) if unnamed else ())


def _kind(name: str) -> str | None:
    path = PurePosixPath(name)
    if path.name == METADATA_FILE or path.suffix.lower() == ".json":
        return "metadata"
    if path.suffix.lower() in PICTURES:
        return "picture"
    if path.suffix.lower() in OTHER_PICTURES:
        return "other picture"
    if path.suffix.lower() in VIDEOS:
        return "a video"
    return "an archive" if is_archive(name) else None


def _plain(name: str) -> str | None:
    """A member's name without "./" and doubled slashes; None for hidden ones (".a", "__MACOSX/a")."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in parts):
        return None
    return "/".join(parts)


def _key(name: str) -> str:
    """WebDataset's key: everything before the first dot of the last part."""
    folder, _, base = name.rpartition("/")
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
