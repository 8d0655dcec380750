"""Reads the entries of tar (plain, gzip, bzip2, xz, zstd) and zip files one after another. Nothing is unpacked to disk.

Memory is bounded for hostile files too (see MAX_MEMBERS and `unpacking`). Names of entries are passed on unchecked.
"""

import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tbps.gallery.ingest.sources.unpacking import CHUNK, BoundedFile, EndedError, check_ratio, unpacker

MAX_MEMBERS = 1_000_000
NOT_A_FILE = "is a folder, device or pipe, which is not read"

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


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of an archive.

    number: from 0; refusal: why it is not read; read: returns its bytes, given a limit; call it before reading the next entry.
    """

    number: int
    name: str
    refusal: str | None
    read: Callable[[int], bytes]


class RefusedError(Exception):
    """One entry cannot be read; the message gives the reason."""


def entries(archive: Path) -> Iterator[Entry]:
    """Yields every entry in the archive's order. Raises EndedError when nothing more can be read."""
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
    stream = BoundedFile(raw, unpacker(raw, magic))
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # otherwise it keeps every header
                yield info.name, _tar_refusal(info), _reader(tar.extractfile, info, info.size)
            if stream.last_block != bytes(tarfile.BLOCKSIZE):
                what = "has a damaged header" if len(stream.last_block) == tarfile.BLOCKSIZE else "ends early"
                raise EndedError(f"{what} at byte {stream.tell():,}")
    except _BROKEN as error:
        opened = stream.tell() > tarfile.BLOCKSIZE
        raise EndedError(f"ends early ({error})" if opened else f"is not a readable tar or zip archive ({error})") from error


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
            check_ratio(unpacked, size)
            return content

        return read

    try:
        with zipfile.ZipFile(BoundedFile(raw, raw)) as archive:
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
    """A function that reads one member completely, at most `limit` bytes whatever size its header states."""

    def read(limit: int) -> bytes:
        if size > limit:
            raise RefusedError(f"{size:,} bytes are more than {limit:,}")
        try:
            with open_member(info) as member:
                content = bytearray()
                while len(content) <= limit and (chunk := member.read(CHUNK)):
                    content += chunk
        except _BROKEN as error:
            raise RefusedError(f"cannot be read ({error})") from error
        if len(content) != size:
            raise RefusedError(f"ends early: {len(content):,} of {size:,} bytes are there")
        return bytes(content)

    return read
