"""The outermost boxes of an MP4 or QuickTime file: whether they can be followed to its end.

Recordings in fragments (cameras, phones, streams) have no index of the whole: behind a damaged place FFmpeg finds nothing any more
and says nothing, and of two whole files that were joined byte by byte it reads the first only.
"""

import os
from pathlib import Path
from typing import BinaryIO

_MOST = 2_000_000  # boxes that are followed: days of a stream in fragments of a second
_INDEX = b"moov"


def damage_of(path: Path) -> str | None:
    """Why not all of a file can be read; None where its boxes follow each other to the end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        place = indices = 0
        for _ in range(_MOST):
            file.seek(place)
            header = file.read(16)
            if place >= size or _is_padding(file, place, header):
                return None
            length = _length(header)
            is_index = header[4:8] == _INDEX and length is not None
            if is_index and indices and not _is_of_fragments(file, place, length or 0):
                return f"it holds a second recording from byte {place:,} on, which cannot be read; cut the file there"
            indices += is_index
            if length is None:
                return f"it is damaged at byte {place:,}, and the {size - place:,} bytes from there on cannot be read"
            if length == 0:  # up to the end of the file
                return None
            place += length
    return None


def _length(header: bytes) -> int | None:
    """The bytes of a box by its first bytes; None where they begin none."""
    kind, length = header[4:8], int.from_bytes(header[:4])
    if len(kind) < 4 or not all(32 <= byte < 127 or byte == 0xA9 for byte in kind):
        return None
    if length == 1:
        length = int.from_bytes(header[8:16])
        return length if length >= 16 else None
    return length if length >= 8 or length == 0 else None


def _is_of_fragments(file: BinaryIO, place: int, length: int) -> bool:
    """Whether an index is that of a stream in fragments, which may repeat it."""
    file.seek(place)
    return b"mvex" in file.read(min(length, 2**24))


def _is_padding(file: BinaryIO, place: int, header: bytes) -> bool:
    """Whether there are only zeroes up to the end, which recorders put where they reserved room."""
    if header.strip(b"\0"):
        return False
    file.seek(place)
    while block := file.read(2**20):
        if block.strip(b"\0"):
            return False
    return file.seek(0, os.SEEK_CUR) > place
