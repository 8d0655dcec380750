"""Pixels of more than 8 bits: brought to 8 by the range that the camera used, not by that of the file.

Sensors of 10, 12 and 14 bits are stored in files of 16. The range is the smallest of 8, 10, 12, 14 and 16 bits that holds the
largest value; one bright pixel is enough to know it. Where every value is a multiple of 256 or of 257 (8 bits moved up or spread
over 16), the file uses the whole 16 bits however dark the picture is.
"""

from typing import Any

import numpy as np
from PIL import Image

BITS = (8, 10, 12, 14, 16)


def is_deep_grey(image: Image.Image) -> bool:
    """Whether a picture has one channel of 16-bit, 32-bit or floating point values."""
    return image.mode == "F" or image.mode.startswith("I")


def grey_to_rgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Deep grey as RGB, and a remark where the range of its values was not that of the file.

    Floating point values up to 1 are shares of white. Raises ValueError on negative values, values that are no numbers, and values
    above 65,535, whose range is unknown.
    """
    values = np.asarray(image)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ValueError("pixels that are not numbers; save it with 8 bits a channel")
        if values.size and values.min() >= 0 and values.max() <= 1:
            return _rgb((values * 255 + 0.5).astype(np.uint8)), None
        values = np.floor(values)
    if not values.size or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"{image.mode} pixels of unknown range; save it with 8 bits a channel")
    narrow, remark = to_bytes(values.astype(np.uint16))
    return _rgb(narrow), remark


def to_bytes(values: np.ndarray) -> tuple[np.ndarray, str | None]:
    """uint16 values as uint8, and a remark where they use fewer than 16 bits."""
    bits = _bits(values)
    remark = None if bits == 16 else f"{bits}-bit values in a 16-bit file were scaled to the whole range"
    return (values >> (bits - 8)).astype(np.uint8), remark


def dark_deep_colour(content: bytes) -> tuple[Image.Image, str] | None:
    """A 16-bit colour picture whose values use fewer bits, decoded anew with all its bits; None where they use 16.

    Pillow keeps the upper 8 of 16 bits, of which 12-bit values fill 4.
    """
    import cv2  # a slow import, for few pictures

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
