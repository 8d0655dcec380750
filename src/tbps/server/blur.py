"""Faces made unrecognisable in what is shown.

Two means together: OpenCV's Haar cascades (frontal and profile) look for faces in the picture at twice its size; and of an upright
crop, taller than wide as those of whole people are, the uppermost quarter is blurred whatever is found, since a face of a few
pixels is found by nothing. What it cannot do: a face that is lower in a crop (of somebody who sits or bends down) and too small,
turned or hidden for the cascades stays as it is; and clothes, gait and place may tell who somebody is without a face.
"""

import hashlib
import io
import threading
from collections import OrderedDict
from typing import Any, final

import numpy as np
from PIL import Image

CASCADES = ("haarcascade_frontalface_default.xml", "haarcascade_profileface.xml")
HEAD = 0.25  # of an upright crop's height
_UPRIGHT = 1.2  # height to width
_BLOCKS = 5  # squares across what is blurred
_LARGER = 2
_SMALLEST = 24  # the side of a face in the enlarged picture
_KEPT = 2000


@final
class FaceBlur:
    """Blurs JPEG pictures; safe from several threads."""

    def __init__(self) -> None:
        import cv2  # a slow import

        self._cv2: Any = cv2
        self._cascades: list[Any] = [self._cv2.CascadeClassifier(self._cv2.data.haarcascades + name) for name in CASCADES]
        self._looking = threading.Lock()  # a cascade keeps the picture that it looks at
        self._done: OrderedDict[bytes, bytes] = OrderedDict()

    def __call__(self, jpeg: bytes) -> bytes:
        """The picture with every face that is found, and the head's place, made of a few squares; the last ones are remembered."""
        key = hashlib.sha256(jpeg).digest()
        if (done := self._done.get(key)) is None:
            self._done[key] = done = self._blurred(jpeg)
            while len(self._done) > _KEPT:
                self._done.popitem(last=False)
        return done

    def forget(self) -> None:
        """Lets go of every picture."""
        self._done.clear()

    def _blurred(self, jpeg: bytes) -> bytes:
        image = Image.open(io.BytesIO(jpeg)).convert("RGB")
        for box in [*self.faces(image), *head(image)]:
            _blur(image, box)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    def faces(self, image: Image.Image) -> list[tuple[int, int, int, int]]:
        """Left, top, right, bottom of the faces that the cascades find, a fifth wider on each side."""
        grey = np.asarray(image.convert("L").resize((image.width * _LARGER, image.height * _LARGER), Image.Resampling.BICUBIC))
        found: list[tuple[int, int, int, int]] = []
        mirrored = np.ascontiguousarray(grey[:, ::-1])
        frontal, profile = self._cascades
        with self._looking:
            for cascade, pixels in ((frontal, grey), (profile, grey), (profile, mirrored)):  # the profile cascade knows one side
                for x, y, width, height in cascade.detectMultiScale(pixels, 1.2, 3, minSize=(_SMALLEST, _SMALLEST)):
                    left = grey.shape[1] - x - width if pixels is mirrored else x
                    found.append((int(left), int(y), int(width), int(height)))
        return [_wider(box, image.size) for box in found]


def head(image: Image.Image) -> list[tuple[int, int, int, int]]:
    """Where the head of an upright crop is."""
    if image.height < _UPRIGHT * image.width:
        return []
    return [(0, 0, image.width, max(1, round(HEAD * image.height)))]


def _wider(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    x, y, width, height = (side / _LARGER for side in box)
    left, top = max(0, int(x - width / 5)), max(0, int(y - height / 5))
    return left, top, min(size[0], int(x + 1.2 * width) + 1), min(size[1], int(y + 1.2 * height) + 1)


def _blur(image: Image.Image, box: tuple[int, int, int, int]) -> None:
    part = image.crop(box)
    blocks = (min(_BLOCKS, part.width), max(1, min(_BLOCKS, round(_BLOCKS * part.height / part.width))))
    image.paste(part.resize(blocks, Image.Resampling.BOX).resize(part.size, Image.Resampling.BILINEAR), box)
