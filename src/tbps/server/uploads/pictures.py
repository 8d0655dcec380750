"""Checks and decodes untrusted pictures. Imports few modules, since worker processes load it (see `decoder`).

Everything is checked before decoding: format (first bytes), number of bytes, then pixels and scans (headers).
"""

from dataclasses import dataclass

from PIL import Image

from tbps.errors import ImageError
from tbps.preprocess.image import check_image, open_image


@dataclass(frozen=True, slots=True)
class PictureCaps:
    """Limits on a picture: bytes of its file, and pixels."""

    bytes: int
    pixels: int


def picture_suffix(start: bytes) -> str | None:
    """Usual suffix of a picture by its first bytes, or None if the format is not allowed."""
    if start.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    return ".webp" if start[:4] == b"RIFF" and start[8:12] == b"WEBP" else None


def open_picture(content: bytes, caps: PictureCaps) -> Image.Image:
    """Decode a picture. Raises ImageError; format and size are checked before anything is decoded."""
    if picture_suffix(content[:16]) is None:
        raise ImageError("is not a JPEG, PNG or WebP picture")
    if len(content) > caps.bytes:
        raise ImageError(f"{len(content):,} bytes are more than {caps.bytes:,}; shrink the picture first")
    width, height = check_image(content)
    if width * height > caps.pixels:
        raise ImageError(f"{width} x {height} pixels are more than {caps.pixels:,}; shrink the picture first")
    return open_image(content)
