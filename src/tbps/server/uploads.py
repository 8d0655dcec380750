"""What an uploaded file is, told from its first bytes, and what its pictures are held to, alone or in an archive.

Order of the checks on a picture: bytes (of the file, or as the archive's header says), format (first bytes), pixels (its header),
and only then decoding. What is indexed are the pixels: nothing else that the file held goes on.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from PIL import Image

from tbps.errors import DataError, ImageError
from tbps.preprocess.image import check_image, open_image
from tbps.search.archives import SUFFIXES
from tbps.search.sources import Admission

FORMATS = "pictures (JPEG, PNG, WebP), zip or tar archives of them, videos (MP4, MOV, MKV, WebM, AVI)"
_LOOKED_AT = 512
_BRANDS = (b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V ", b"MSNV", b"dash", b"qt  ")
_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip")  # a QuickTime file without a brand


class Kind(StrEnum):
    """What a file is."""

    picture = "picture"
    archive = "archive"
    video = "video"


@dataclass(frozen=True, slots=True)
class PictureCaps:
    """The most that a picture may have."""

    bytes: int
    pixels: int


def recognised(file: Path) -> tuple[Kind, str] | None:
    """The kind of a file and the usual end of its name; None for everything that is not allowed."""
    with file.open("rb") as opened:
        return _recognised(opened.read(_LOOKED_AT))


def _recognised(start: bytes) -> tuple[Kind, str] | None:
    picture, archive, video = Kind.picture, Kind.archive, Kind.video
    by_start = {
        b"\xff\xd8\xff": (picture, ".jpg"),
        b"\x89PNG\r\n\x1a\n": (picture, ".png"),
        b"PK\x03\x04": (archive, ".zip"),
        b"PK\x05\x06": (archive, ".zip"),
        b"\x1f\x8b": (archive, ".tar.gz"),
        b"BZh": (archive, ".tar.bz2"),
        b"\xfd7zXZ\x00": (archive, ".tar.xz"),
        b"\x28\xb5\x2f\xfd": (archive, ".tar.zst"),
        b"\x1a\x45\xdf\xa3": (video, ".mkv"),
    }
    for magic, found in by_start.items():
        if start.startswith(magic):
            return found
    if start[:4] == b"RIFF":
        return {b"WEBP": (picture, ".webp"), b"AVI ": (video, ".avi")}.get(start[8:12])
    if start[257:262] == b"ustar":
        return archive, ".tar"
    if (start[4:8] == b"ftyp" and start[8:12] in _BRANDS) or start[4:8] in _ATOMS:
        return video, ".mp4"
    return None


def named_as(name: str, kind: Kind, suffix: str) -> str:
    """A name that ends as its content says, by which the rest of `tbps` goes."""
    path = PurePosixPath(name.lower())
    if kind is Kind.archive:
        return name if suffix in SUFFIXES and name.lower().endswith(suffix) else f"{name}{suffix}"
    fitting = {".jpg": (".jpg", ".jpeg"), ".mp4": (".mp4", ".mov", ".m4v"), ".mkv": (".mkv", ".webm")}.get(suffix, (suffix,))
    return name if path.suffix in fitting else f"{name}{suffix}"


def admission(caps: PictureCaps) -> Admission:
    """The rules as the gallery applies them to every picture of an upload."""
    return Admission(caps.bytes, lambda content: open_picture(content, caps))


def open_upload(file: Path, caps: PictureCaps) -> Image.Image:
    """As `open_picture`, of a file."""
    _check_bytes(file.stat().st_size, caps)
    return open_picture(file.read_bytes(), caps)


def open_picture(content: bytes, caps: PictureCaps) -> Image.Image:
    """A picture's pixels. Raises ImageError, before anything is decoded where format or size are not allowed."""
    found = _recognised(content[:_LOOKED_AT])
    if found is None or found[0] is not Kind.picture:
        raise ImageError("is no JPEG, PNG or WebP picture")
    _check_bytes(len(content), caps)
    width, height = check_image(content)
    if width * height > caps.pixels:
        raise ImageError(f"{width} x {height} pixels are more than {caps.pixels:,}; shrink the picture first")
    return open_image(content)


def _check_bytes(size: int, caps: PictureCaps) -> None:
    if size > caps.bytes:
        raise ImageError(f"{size:,} bytes are more than {caps.bytes:,}; shrink the picture first")


def check_kind(file: Path) -> tuple[Kind, str]:
    """As `recognised`. Raises DataError for what is not allowed."""
    found = recognised(file)
    if found is None:
        raise DataError(f"is none of the formats that may be uploaded: {FORMATS}")
    return found
