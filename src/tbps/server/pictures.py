"""Rules for pictures that somebody else sent, and their decoding. Imports little: worker processes run this (see `decoder`).

Order of the checks: bytes, format (first bytes), pixels and scans (headers), and only then decoding.
"""

from dataclasses import dataclass

from PIL import Image

from tbps.errors import ImageError
from tbps.preprocess.image import check_image, open_image


@dataclass(frozen=True, slots=True)
class PictureCaps:
    """The most that a picture may have."""

    bytes: int
    pixels: int


def picture_suffix(start: bytes) -> str | None:
    """The usual end of a picture's name, told from its first bytes; None where it is of no allowed format."""
    if start.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    return ".webp" if start[:4] == b"RIFF" and start[8:12] == b"WEBP" else None


def open_picture(content: bytes, caps: PictureCaps) -> Image.Image:
    """A picture's pixels. Raises ImageError, before anything is decoded where format or size are not allowed."""
    if picture_suffix(content[:16]) is None:
        raise ImageError("is no JPEG, PNG or WebP picture")
    if len(content) > caps.bytes:
        raise ImageError(f"{len(content):,} bytes are more than {caps.bytes:,}; shrink the picture first")
    width, height = check_image(content)
    if width * height > caps.pixels:
        raise ImageError(f"{width} x {height} pixels are more than {caps.pixels:,}; shrink the picture first")
    return open_image(content)
