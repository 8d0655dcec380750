"""The entries of a container, one after another: tar (plain, gzip, bzip2, xz, zstd) and zip. Nothing is ever unpacked to disk.

Memory stays bounded against containers that were made to harm (limits below). What entries are named means nothing here.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, BinaryIO, final

MAX_MEMBERS = 1_000_000
MAX_RATIO = 200  # unpacked to packed bytes, once more than FREE_BYTES were unpacked; pictures hardly shrink
FREE_BYTES = 64 * 2**20
NOT_A_FILE = "is a folder, device or pipe, which is not read"
_AT_ONCE = 64 * 2**20  # the largest single read that the list of a zip or a long name in a tar may ask for
_CHUNK = 2**20

_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    MemoryError,
    RuntimeError,  # an encrypted member
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


class EndedError(Exception):
    """Nothing more can be read from this archive; the text says why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: `refusal` says why it is not read, `read` gives its bytes and has to be called before the next entry."""

    number: int
    name: str
    refusal: str | None
    read: Callable[[int], bytes]


class RefusedError(Exception):
    """One member cannot be read; the text says why."""


def entries(archive: Path) -> Iterator[Entry]:
    """Every entry in the archive's order. Raises EndedError where nothing more can be read."""
    try:
        with archive.open("rb") as raw:
            magic = raw.read(6)
            raw.seek(0)
            found = _zip_entries(raw) if magic[:4] in (b"PK\3\4", b"PK\5\6") else _tar_entries(raw, magic)
            for number, (name, refusal, read) in enumerate(found):
                if number >= MAX_MEMBERS:
                    raise EndedError(f"holds more than {MAX_MEMBERS:,} members; split it")
                yield Entry(number, name, refusal, read)
    except OSError as error:
        raise EndedError(f"cannot be read ({error.strerror or error})") from error


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
                raise EndedError(f"{what} at byte {stream.tell():,}")
    except _BROKEN as error:
        opened = stream.tell() > tarfile.BLOCKSIZE
        raise EndedError(f"ends early ({error})" if opened else f"is no readable tar or zip archive ({error})") from error


def _tar_refusal(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return "is a link, which is not followed"
    if info.issparse():
        return "is a sparse file, which is not read"
    return None if info.isreg() else NOT_A_FILE


def _zip_entries(raw: BinaryIO) -> Iterator[_Parts]:
    size = raw.seek(0, io.SEEK_END)
    unpacked = 0

    def reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[int], bytes]:
        def read(limit: int) -> bytes:
            nonlocal unpacked
            content = _reader(archive.open, info, info.file_size)(limit)
            unpacked += len(content)
            if unpacked > FREE_BYTES and unpacked > MAX_RATIO * size:
                raise EndedError(f"unpacks to more than {MAX_RATIO} times its size, as only a decompression bomb does")
            return content

        return read

    try:
        with zipfile.ZipFile(_Bounded(raw, raw)) as archive:
            for info in archive.infolist():
                yield info.filename, _zip_refusal(info), reader(archive, info)
    except _BROKEN as error:
        raise EndedError(f"ends early or is damaged: its list of contents cannot be read ({error})") from error


def _zip_refusal(info: zipfile.ZipInfo) -> str | None:
    mode = info.external_attr >> 16
    if info.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
        return "is a link, which is not followed" if stat.S_ISLNK(mode) else NOT_A_FILE
    return "is encrypted" if info.flag_bits & 1 else None


def _reader(open_member: Callable[[Any], Any], info: Any, size: int) -> Callable[[int], bytes]:
    """Reads one member whole, at most `limit` bytes whatever its header promises."""

    def read(limit: int) -> bytes:
        if size > limit:
            raise RefusedError(f"{size:,} bytes are more than {limit:,}")
        try:
            with open_member(info) as member:
                content = bytearray()
                while len(content) <= limit and (chunk := member.read(_CHUNK)):
                    content += chunk
        except _BROKEN as error:
            raise RefusedError(f"cannot be read ({error})") from error
        if len(content) != size:
            raise RefusedError(f"ends early: {len(content):,} of {size:,} bytes are there")
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
            raise EndedError("is packed with zstd, which needs Python 3.14; unpack it to a plain tar with: zstd -d") from error
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
            raise EndedError(f"unpacks to more than {MAX_RATIO} times its size, as only a decompression bomb does")
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
