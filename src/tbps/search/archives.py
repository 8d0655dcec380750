"""Pictures inside archives: tar (plain, gzip, bzip2, xz, zstd) and zip, read member by member; nothing is ever unpacked to disk.

An archive is gone through twice: `list_archive` reads the members' names and their metadata, `read_members` the pictures in the
same order. Metadata are a `metadata.jsonl` inside (names relative to its own folder), or one JSON object a picture, as WebDataset
shards have it: `0001.jpg` with `0001.json`. Captions (`0001.txt`) are left out, a gallery holds none.

Member names are only names. Memory stays bounded against archives that were made to harm (limits below).
"""

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, BinaryIO, final

from tbps.errors import AnnotationError
from tbps.preprocess.image import MAX_FILE_BYTES
from tbps.preprocess.metadata import JSON, METADATA_FILE, parse_columns, parse_metadata

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip")
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
OTHER_PICTURES = frozenset(
    {".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".ico", ".dng", ".cr2", ".nef", ".arw"}
)
VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"})

MAX_MEMBERS = 1_000_000
MAX_RATIO = 200  # unpacked to packed bytes, once more than FREE_BYTES were unpacked; pictures hardly shrink
FREE_BYTES = 64 * 2**20
MAX_METADATA_BYTES = 256 * 2**20  # of one archive, all of it together
_AT_ONCE = 64 * 2**20  # the largest single read that the list of a zip or a long name in a tar may ask for
_CHUNK = 2**20
_NAME_LENGTH = 1000

_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,  # an encrypted member
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)

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


class _EndedError(Exception):
    """Nothing more can be read from this archive; the text says why."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry: `refusal` says why it is not read, `read` gives its bytes and has to be called before the next entry."""

    number: int
    name: str
    refusal: str | None
    read: Callable[[int], bytes]


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
        for entry in _entries(archive):
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
    except _EndedError as error:
        kept = f"; the {len(pictures):,} pictures before that are kept" if pictures else ""
        failed.append(("", f"{error}{kept}"))
    listed = [Listed(name, number, columns.get(_key(name), {})) for name, number in pictures.items()]
    if not lists:
        return Contents(tuple(listed), tuple(failed), ())
    return _named(listed, lists, failed)


def _read_metadata(
    entry: "_Entry", name: str, lists: dict[str, bytes], columns: dict[str, dict[str, JSON]], limit: int
) -> tuple[list[Failure], int]:
    """Reads a `metadata.jsonl` or one picture's JSON; what is wrong with it, and its size."""
    content = b""
    try:
        content = entry.read(limit)
        if PurePosixPath(name).name == METADATA_FILE:
            lists[str(PurePosixPath(name).parent)] = content
        else:
            columns[_key(name)] = parse_columns(content, name)
    except (AnnotationError, _RefusedError) as error:
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
        for entry in _entries(archive):
            if number is None:
                return
            if entry.number == number:
                try:
                    content: bytes | str = entry.read(limit)
                except _RefusedError as error:
                    content = str(error)
                number, left = next(wanted, None), left - 1
                yield content
    except _EndedError as error:
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


class _RefusedError(Exception):
    """One member cannot be read; the text says why."""


def _entries(archive: Path) -> Iterator[_Entry]:
    """Every entry in the archive's order. Raises _EndedError where nothing more can be read."""
    try:
        with archive.open("rb") as raw:
            magic = raw.read(6)
            raw.seek(0)
            entries = _zip_entries(raw) if magic[:4] in (b"PK\3\4", b"PK\5\6") else _tar_entries(raw, magic)
            for number, (name, refusal, read) in enumerate(entries):
                if number >= MAX_MEMBERS:
                    raise _EndedError(f"holds more than {MAX_MEMBERS:,} members; split it")
                yield _Entry(number, name, refusal, read)
    except OSError as error:
        raise _EndedError(f"cannot be read ({error.strerror or error})") from error


_Parts = tuple[str, str | None, Callable[[int], bytes]]


def _tar_entries(raw: BinaryIO, magic: bytes) -> Iterator[_Parts]:
    stream = _Bounded(raw, _unpacker(raw, magic))
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # it would keep every header
                yield info.name, _tar_refusal(info), _reader(tar.extractfile, info, info.size)
            if stream.last_block != bytes(tarfile.BLOCKSIZE):
                what = "has a damaged header" if len(stream.last_block) == tarfile.BLOCKSIZE else "ends early"
                raise _EndedError(f"{what} at byte {stream.tell():,}")
    except _BROKEN as error:
        opened = stream.tell() > tarfile.BLOCKSIZE
        raise _EndedError(f"ends early ({error})" if opened else f"is no readable tar or zip archive ({error})") from error


def _tar_refusal(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return "is a link, which is not followed"
    if info.issparse():
        return "is a sparse file, which is not read"
    return None if info.isreg() else "is a folder, device or pipe, which is not read"


def _zip_entries(raw: BinaryIO) -> Iterator[_Parts]:
    size = raw.seek(0, io.SEEK_END)
    unpacked = 0

    def reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[int], bytes]:
        def read(limit: int) -> bytes:
            nonlocal unpacked
            content = _reader(archive.open, info, info.file_size)(limit)
            unpacked += len(content)
            if unpacked > FREE_BYTES and unpacked > MAX_RATIO * size:
                raise _EndedError(f"unpacks to more than {MAX_RATIO} times its size, as only a decompression bomb does")
            return content

        return read

    try:
        with zipfile.ZipFile(_Bounded(raw, raw)) as archive:
            for info in archive.infolist():
                yield info.filename, _zip_refusal(info), reader(archive, info)
    except _BROKEN as error:
        raise _EndedError(f"ends early or is damaged: its list of contents cannot be read ({error})") from error


def _zip_refusal(info: zipfile.ZipInfo) -> str | None:
    mode = info.external_attr >> 16
    if info.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
        return "is a link, which is not followed" if stat.S_ISLNK(mode) else "is a folder, device or pipe, which is not read"
    return "is encrypted" if info.flag_bits & 1 else None


def _reader(open_member: Callable[[Any], Any], info: Any, size: int) -> Callable[[int], bytes]:
    """Reads one member whole, at most `limit` bytes whatever its header promises."""

    def read(limit: int) -> bytes:
        if size > limit:
            raise _RefusedError(f"{size:,} bytes are more than {limit:,}")
        try:
            with open_member(info) as member:
                content = bytearray()
                while len(content) <= limit and (chunk := member.read(_CHUNK)):
                    content += chunk
        except _BROKEN as error:
            raise _RefusedError(f"cannot be read ({error})") from error
        if len(content) != size:
            raise _RefusedError(f"ends early: {len(content):,} of {size:,} bytes are there")
        return bytes(content)

    return read


def _unpacker(raw: BinaryIO, magic: bytes) -> IO[bytes] | io.BufferedIOBase:
    """The unpacked bytes of a tar file, the packing told from its first bytes."""
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(raw)
    if magic.startswith(b"BZh"):
        return bz2.open(raw)
    if magic.startswith(b"\xfd7zXZ"):
        return io.BufferedReader(_Xz(raw))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        try:
            opened: IO[bytes] = import_module("compression.zstd").open(raw)
        except ImportError as error:
            raise _EndedError("is packed with zstd, which needs Python 3.14; unpack it to a plain tar with: zstd -d") from error
        return opened
    return raw


@final
class _Xz(io.RawIOBase):
    """An xz file unpacked; `lzma.open` cannot bound the memory that a file's header asks for."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._unpacker = self._new()

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=256 * 2**20)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        rest = b""
        while True:
            if self._unpacker.eof:
                rest = (self._unpacker.unused_data or self._raw.read(_CHUNK)).lstrip(b"\0")
                if not rest:
                    return 0
                self._unpacker = self._new()
            elif self._unpacker.needs_input and not (rest := self._raw.read(2**16)):
                raise EOFError("the packed data end early")
            content = self._unpacker.decompress(rest, len(buffer))
            rest = b""
            if content:
                buffer[: len(content)] = content
                return len(content)


@final
class _Bounded(io.BufferedIOBase):
    """A file for `tarfile` and `zipfile`, unpacked while it is read.

    Refuses single reads beyond _AT_ONCE, and to unpack more than MAX_RATIO times what was read of the packed file. Packed files
    move forward only, which is all that `tarfile` asks for.
    """

    def __init__(self, raw: BinaryIO, unpacked: IO[bytes] | io.BufferedIOBase) -> None:
        self._raw, self._unpacked, self._packed = raw, unpacked, raw is not unpacked
        self._at = 0
        self.last_block = b""  # of the size of a header

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        all_of_it = size is None or size < 0
        content = self._unpacked.read(_AT_ONCE if all_of_it else min(size or 0, _AT_ONCE))
        if len(content) == _AT_ONCE:
            raise ValueError(f"a list or name of more than {_AT_ONCE:,} bytes")
        self._at += len(content)
        if size == tarfile.BLOCKSIZE:
            self.last_block = content
        if self._packed and self._at > FREE_BYTES and self._at > MAX_RATIO * self._raw.tell():
            raise _EndedError(f"unpacks to more than {MAX_RATIO} times its size, as only a decompression bomb does")
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self._packed:
            self._at = self._raw.seek(offset, whence)
            return self._at
        if whence != io.SEEK_SET or offset < self._at:
            raise ValueError("a packed archive is read forward only")
        while self._at < offset and self.read(min(_CHUNK, offset - self._at)):
            pass
        return self._at
