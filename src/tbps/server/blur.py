"""Blurring of faces in images that the service shows.

OpenCV's Haar cascades (frontal and profile) search for faces in the image enlarged to twice its size. In addition, the upper
quarter of an upright crop (taller than wide, like crops of whole people) is always blurred, since no detector finds a face of a few
pixels. Limits: a face in the lower part of a crop, for example of a person who sits or bends down, is not blurred if it is too
small, turned or hidden for the cascades. Clothes, gait and place may identify a person even without a face.
"""

import hashlib
import io
import threading
from typing import Any, final

import numpy as np
from cachetools import LRUCache
from PIL import Image

CASCADES = ("haarcascade_frontalface_default.xml", "haarcascade_profileface.xml")
HEAD = 0.25  # share of an upright crop's height
_UPRIGHT = 1.2  # least ratio of height to width
_BLOCKS = 5  # squares across a blurred area
_LARGER = 2
_SMALLEST = 24  # least side of a face in the enlarged image, in pixels
_KEPT = 2000  # blurred images


@final
class FaceBlur:
    """Blurs faces in JPEG images; caches the 2,000 most recently used ones. Thread-safe."""

    def __init__(self) -> None:
        import cv2  # a slow import

        self._cv2: Any = cv2
        self._cascades: list[Any] = [self._cv2.CascadeClassifier(self._cv2.data.haarcascades + name) for name in CASCADES]
        self._detecting = threading.Lock()  # a cascade stores the image that it works on
        self._lock = threading.Lock()
        self._blurred: LRUCache[bytes, bytes] = LRUCache(_KEPT)

    def __call__(self, jpeg: bytes) -> bytes:
        """Return the image with every face found, and the head area of an upright crop, reduced to a few squares."""
        key = hashlib.sha256(jpeg).digest()
        with self._lock:
            kept = self._blurred
            done = kept.get(key)
        if done is None:
            done = self._blur(jpeg)
            with self._lock:
                kept[key] = done  # has no effect if `forget` was called meanwhile
        return done

    def forget(self) -> None:
        """Clear the cache; images that are being blurred are not cached either."""
        with self._lock:
            self._blurred = LRUCache(_KEPT)

    def _blur(self, jpeg: bytes) -> bytes:
        image = Image.open(io.BytesIO(jpeg)).convert("RGB")
        for box in [*self.faces(image), *head(image)]:
            _blur_box(image, box)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    def faces(self, image: Image.Image) -> list[tuple[int, int, int, int]]:
        """Boxes (left, top, right, bottom) of the faces that the cascades find, enlarged by 20% of their size on each side."""
        grey = np.asarray(image.convert("L").resize((image.width * _LARGER, image.height * _LARGER), Image.Resampling.BICUBIC))
        found: list[tuple[int, int, int, int]] = []
        mirrored = np.ascontiguousarray(grey[:, ::-1])
        frontal, profile = self._cascades
        with self._detecting:
            for cascade, pixels in (
                (frontal, grey),
                (profile, grey),
                (profile, mirrored),
            ):  # the profile cascade finds faces turned to one side only
                for x, y, width, height in cascade.detectMultiScale(pixels, 1.2, 3, minSize=(_SMALLEST, _SMALLEST)):
                    left = grey.shape[1] - x - width if pixels is mirrored else x
                    found.append((int(left), int(y), int(width), int(height)))
        return [_wider(box, image.size) for box in found]


def head(image: Image.Image) -> list[tuple[int, int, int, int]]:
    """Box of the head area of an upright crop, as a list of one; empty for other images."""
    if image.height < _UPRIGHT * image.width:
        return []
    return [(0, 0, image.width, max(1, round(HEAD * image.height)))]


def _wider(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    x, y, width, height = (side / _LARGER for side in box)
    left, top = max(0, int(x - width / 5)), max(0, int(y - height / 5))
    return left, top, min(size[0], int(x + 1.2 * width) + 1), min(size[1], int(y + 1.2 * height) + 1)


def _blur_box(image: Image.Image, box: tuple[int, int, int, int]) -> None:
    part = image.crop(box)
    blocks = (min(_BLOCKS, part.width), max(1, min(_BLOCKS, round(_BLOCKS * part.height / part.width))))
    image.paste(part.resize(blocks, Image.Resampling.BOX).resize(part.size, Image.Resampling.BILINEAR), box)
