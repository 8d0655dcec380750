"""Conversion of images with more than 8 bits per value to 8 bits, scaled by the range that the camera used.

The values of 10-, 12- and 14-bit sensors are stored in 16-bit files. The range is the smallest of 8, 10, 12, 14 and 16 bits that
contains the largest value of the image. If every value is a multiple of 256 or of 257 (8 bits shifted or scaled to 16), the range
is 16 bits, however dark the image is.
"""

from typing import Any

import numpy as np
from PIL import Image

BITS = (8, 10, 12, 14, 16)


def is_deep_grey(image: Image.Image) -> bool:
    """Returns whether an image has one channel of 16-bit, 32-bit or floating point values."""
    return image.mode == "F" or image.mode.startswith("I")


def grey_to_rgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Converts a grey image of more than 8 bits to RGB. Returns it with a remark if its values use fewer bits than the file has.

    Floating point values up to 1 count as fractions of white. Raises ValueError for negative values, NaN, infinity and values above
    65,535, whose range is unknown.
    """
    values = np.asarray(image)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("pixels that are not numbers; save it with 8 bits per channel")
        if values.size and values.min() >= 0 and values.max() <= 1:
            return _rgb((values * 255 + 0.5).astype(np.uint8)), None
        values = np.floor(values)
    if not values.size or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"{image.mode} pixels of unknown range; save it with 8 bits per channel")
    narrow, remark = to_bytes(values.astype(np.uint16))
    return _rgb(narrow), remark


def to_bytes(values: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Converts uint16 to uint8. Returns the values with a remark if they use fewer than 16 bits, else None."""
    bits = _bits(values)
    remark = None if bits == 16 else f"{bits}-bit values in a 16-bit file were scaled to the whole range"
    return (values >> (bits - 8)).astype(np.uint8), remark


def dark_deep_colour(content: bytes) -> tuple[Image.Image, str] | None:
    """Decodes a 16-bit colour image whose values use fewer bits; None for one that uses all 16.

    Pillow keeps the upper 8 of 16 bits, in which a 12-bit value has only 4.
    """
    import cv2  # a slow import, needed for few images

    decoded: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3 or decoded.shape[2] not in (3, 4):
        return None
    narrow, remark = to_bytes(decoded[..., 2::-1])
    if remark is None:
        return None
    colours = Image.fromarray(np.ascontiguousarray(narrow))
    if decoded.shape[2] == 4:
        mask = Image.fromarray(to_bytes(decoded[..., 3])[0])
        colours = Image.composite(colours, Image.new("RGB", colours.size, "white"), mask)
    return colours, remark


def _bits(values: np.ndarray) -> int:
    largest = int(values.max())
    if largest and (not (values & 255).any() or not (values % 257).any()):
        return 16
    return next(bits for bits in BITS if largest < 1 << bits)


def _rgb(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values).convert("RGB")
