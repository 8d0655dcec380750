"""Checks an MP4 or QuickTime file for damage, by following its top-level boxes to its end.

FFmpeg reports no error in two cases. A fragmented recording (cameras, phones, streams) has no index of the whole file, so nothing
after a damaged place is found; and of two concatenated files only the first is read.
"""

import os
from pathlib import Path
from typing import BinaryIO

_MOST = 2_000_000  # boxes to follow: days of a recording in fragments of one second
_INDEX = b"moov"


def damage_of(path: Path) -> str | None:
    """The reason why part of a file cannot be read; None when its boxes follow each other to the end."""
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
            if length == 0:  # this box extends to the end of the file
                return None
            place += length
    return None


def _length(header: bytes) -> int | None:
    """The length of a box in bytes, by its first 16 bytes; None when they are not the header of a box."""
    kind, length = header[4:8], int.from_bytes(header[:4])
    if len(kind) < 4 or not all(32 <= byte < 127 or byte == 0xA9 for byte in kind):
        return None
    if length == 1:
        length = int.from_bytes(header[8:16])
        return length if length >= 16 else None
    return length if length >= 8 or length == 0 else None


def _is_of_fragments(file: BinaryIO, place: int, length: int) -> bool:
    """Whether an index box belongs to a fragmented recording, which may contain it several times."""
    file.seek(place)
    return b"mvex" in file.read(min(length, 2**24))


def _is_padding(file: BinaryIO, place: int, header: bytes) -> bool:
    """Whether the rest of the file is zeros, with which recorders reserve space."""
    if header.strip(b"\0"):
        return False
    file.seek(place)
    while block := file.read(2**20):
        if block.strip(b"\0"):
            return False
    return file.seek(0, os.SEEK_CUR) > place
