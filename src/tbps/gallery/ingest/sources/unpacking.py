"""Decompresses files (gzip, bzip2, xz, zstd) while they are read, with limits on memory and on the compression ratio."""

import bz2
import gzip
import io
import lzma
import tarfile
from importlib import import_module
from typing import IO, Any, BinaryIO, final

MAX_RATIO = 200  # of unpacked to packed bytes, checked above FREE_BYTES unpacked bytes; pictures hardly compress
FREE_BYTES = 64 * 2**20
CHUNK = 2**20
_LARGEST_READ = 64 * 2**20  # limit of a single read, such as of the directory of a zip or of a long name in a tar
_XZ_MEMORY = 256 * 2**20


class EndedError(Exception):
    """Nothing more can be read from an archive; the message gives the reason."""


def check_ratio(unpacked: int, packed: int) -> None:
    """Raises EndedError when a file unpacks to far more bytes than pictures do."""
    if unpacked > FREE_BYTES and unpacked > MAX_RATIO * packed:
        raise EndedError(f"unpacks to more than {MAX_RATIO} times its size, as only a decompression bomb does")


def unpacker(raw: BinaryIO, magic: bytes) -> IO[bytes] | io.BufferedIOBase:
    """Opens the unpacked bytes of a tar file. magic: its first bytes, which identify the compression.

    Raises EndedError on zstd before Python 3.14.
    """
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
    """Unpacks an xz file. `lzma.open` cannot bound the memory that a file's header asks for."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._unpacker = self._new()

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        rest = b""
        while True:
            if self._unpacker.eof:
                rest = (self._unpacker.unused_data or self._raw.read(CHUNK)).lstrip(b"\0")
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
class BoundedFile(io.BufferedIOBase):
    """A file for `tarfile` and `zipfile`, unpacked while it is read.

    Raises ValueError on a single read of 64 MiB or more, EndedError as `check_ratio`. Packed files are read forward only, which is
    all that `tarfile` needs.
    """

    def __init__(self, raw: BinaryIO, unpacked: IO[bytes] | io.BufferedIOBase) -> None:
        self._raw, self._unpacked, self._packed = raw, unpacked, raw is not unpacked
        self._at = 0
        self.last_block = b""  # result of the last read of the size of a tar header

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        all_of_it = size is None or size < 0
        content = self._unpacked.read(_LARGEST_READ if all_of_it else min(size or 0, _LARGEST_READ))
        if len(content) == _LARGEST_READ:
            raise ValueError(f"a list or name of more than {_LARGEST_READ:,} bytes")
        self._at += len(content)
        if size == tarfile.BLOCKSIZE:
            self.last_block = content
        if self._packed:
            check_ratio(self._at, self._raw.tell())
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if not self._packed:
            self._at = self._raw.seek(offset, whence)
            return self._at
        if whence != io.SEEK_SET or offset < self._at:
            raise ValueError("a packed archive is read forward only")
        while self._at < offset and self.read(min(CHUNK, offset - self._at)):
            pass
        return self._at
