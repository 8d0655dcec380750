"""Converts decoded frames to upright pictures with square pixels.

DVDs and some cameras store pixels that are not square; the display matrix of a frame says how to rotate and mirror it.
"""

import struct
from typing import Any, final

import numpy as np
from PIL import Image

from tbps.preprocess.image import MAX_PIXELS
from tbps.video.detectors.protocol import Frame

_NEARLY_SQUARE = 0.005
_DELAYED = 64  # largest number of frames that a decoder may hold back
_LONGEST_PIXEL = 8  # a larger ratio of the sides of a pixel is considered an error in the file


def upright_frame(name: str, number: int, decoded: Any, ratio: float) -> Frame:
    """Converts a decoded picture to a frame. ratio: width of a stored pixel over its height."""
    pixels = decoded.to_ndarray(format="rgb24")
    stored = pixels.shape
    pixels = _square(pixels, ratio)
    stretch = pixels.shape[1] / stored[1], pixels.shape[0] / stored[0]
    swapped, mirrored, upside_down = _orientation(decoded)
    if swapped:
        pixels, stretch = pixels.transpose(1, 0, 2), (stretch[1], stretch[0])
    upright = pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    return Frame(name, number, np.ascontiguousarray(upright), stretch)


@final
class PixelShape:
    """The width of a stored pixel over its height, which may change during a video."""

    def __init__(self, stream: Any) -> None:
        self._context = stream.codec_context
        self._first = self._context.sample_aspect_ratio
        self._of_file = stream.sample_aspect_ratio
        self._by_stamp: dict[int, Any] = {}  # time stamp of a frame not yet returned -> its ratio, if that differs from the first

    def note(self, packet: Any) -> None:
        """Records the ratio that the decoder has read from a packet, whose frame may be returned later."""
        now = self._context.sample_aspect_ratio
        if now and now != self._first and packet.pts is not None:
            self._by_stamp[packet.pts] = now
            if len(self._by_stamp) > _DELAYED:
                del self._by_stamp[next(iter(self._by_stamp))]

    def ratio(self, decoded: Any) -> float:
        """The ratio of a frame: its own if it differs from the first, else the container's, else the codec's; 1 if implausible."""
        without_stamp = self._context.sample_aspect_ratio if decoded.pts is None else self._first
        own = self._by_stamp.pop(decoded.pts, without_stamp)
        ratio = own if own and own != self._first else self._of_file or own
        return float(ratio) if ratio and 1 / _LONGEST_PIXEL <= ratio <= _LONGEST_PIXEL else 1.0


def _orientation(decoded: Any) -> tuple[bool, bool, bool]:
    """How to turn a stored picture upright: whether to swap rows and columns, then to mirror, then to turn upside down.

    The display matrix (a b u, c d v, x y w) maps a point to (a x + c y, b x + d y), y downwards. PyAV's `rotation` ignores mirrors.
    """
    matrix = decoded.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _square(pixels: np.ndarray, ratio: float) -> np.ndarray:
    """Resizes a picture, whose pixels are `ratio` times as wide as high, to square pixels by enlarging their shorter side."""
    height, width = pixels.shape[:2]
    size = round(width * max(ratio, 1.0)), round(height * max(1 / ratio, 1.0))
    if abs(ratio - 1) < _NEARLY_SQUARE or size[0] * size[1] > MAX_PIXELS:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
