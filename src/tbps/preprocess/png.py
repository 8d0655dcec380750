"""Removal of large text chunks from PNG files before Pillow opens them.

Image generators and editors store workflows and edit histories of many megabytes in text chunks. Pillow refuses the whole file for
a large text or a text with a wrong checksum. Texts and colour profiles are not needed here, so large and damaged ones are removed.
"""

import io
import zlib
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST = 2**18  # bytes; smaller texts are kept, since they may store orientation and capture time
_MOST_TOGETHER = 2**22
_NAMED = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_BLOCK = 2**20


def without_large_texts(file: BinaryIO) -> BinaryIO | None:
    """Returns a PNG without its large or damaged texts and profiles, or None if it has none of these.

    `file` must be at its beginning, and is there again on return.
    """
    file.seek(len(SIGNATURE))
    large: list[tuple[int, int]] = []
    together = 0
    while len(header := file.read(8)) == 8:
        length, kind, start = int.from_bytes(header[:4], "big"), header[4:], file.tell() - 8
        if kind in _NAMED:
            body = file.read(min(length, _MOST + 1))
            size = _unpacked(kind, body)
            together += size
            damaged = length <= _MOST and zlib.crc32(kind + body) != int.from_bytes(file.read(4))
            if size > _MOST or length > _MOST or together > _MOST_TOGETHER or damaged:
                large.append((start, start + length + 12))
        file.seek(start + length + 12)
    file.seek(0)
    return _without(file, large) if large else None


def _unpacked(kind: bytes, body: bytes) -> int:
    """Returns about how many bytes a text or profile has when uncompressed; counting stops at _MOST + 1."""
    packed = kind in (b"zTXt", b"iCCP") or (kind == b"iTXt" and body.partition(b"\0")[2][:1] == b"\1")
    if not packed:
        return len(body)
    rest = body.partition(b"\0")[2]
    packed_text = rest[1:] if kind != b"iTXt" else rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    try:
        return len(zlib.decompressobj().decompress(packed_text, _MOST + 1))
    except zlib.error:
        return _MOST + 1  # damaged: remove it


def _without(file: BinaryIO, large: list[tuple[int, int]]) -> BinaryIO:
    kept = io.BytesIO()
    for begin, end in large:
        _copy(file, kept, begin - file.tell())
        file.seek(end)
    _copy(file, kept, None)
    file.seek(0)
    kept.seek(0)
    return kept


def _copy(source: BinaryIO, target: BinaryIO, size: int | None) -> None:
    while size is None or size > 0:
        block = source.read(_BLOCK if size is None else min(size, _BLOCK))
        if not block:
            return
        target.write(block)
        size = None if size is None else size - len(block)
