"""Crops of people from frames, with their quality and the metadata columns that say where they were found.

quality = score x size x sharpness x whole, each in [0, 1]
    score      of the detector
    size       height of the box / 256, at most 1
    sharpness  v / (v + 100), v the variance of the Laplacian of the grey crop at 64 x 128 pixels
    whole      1, or 0.5 when the box touches the edge of the frame, since the person may be cut off
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from tbps.preprocess.metadata import JSON
from tbps.video.detectors.protocol import Detection, Frame

_TALL = 256
_SHARP = 100.0
_CUT_OFF = 0.5
_EDGE = 0.005  # of the side of the frame


@dataclass(frozen=True, slots=True)
class Crop:
    """A person in a frame. box: left, top, width, height in pixels; offset: seconds from the start of the video."""

    image: Image.Image
    box: tuple[int, int, int, int]
    quality: float
    frame: int = 0
    offset: float | None = None

    def columns(self) -> dict[str, JSON]:
        """The metadata columns of the crop."""
        x, y, width, height = self.box
        columns: dict[str, JSON] = {"box_x": x, "box_y": y, "box_width": width, "box_height": height}
        columns["quality"] = round(self.quality, 4)
        if self.offset is not None:
            columns |= {"frame": self.frame, "offset_seconds": round(self.offset, 3)}
        return columns


def cut(frame: Frame, detection: Detection, offset: float | None = None) -> Crop:
    """Cuts a detected person out of a frame. offset: time of the frame in seconds."""
    height, width = frame.pixels.shape[:2]
    left, top = min(int(detection.x), width - 1), min(int(detection.y), height - 1)
    right = min(width, max(left + 1, round(detection.x + detection.width)))
    bottom = min(height, max(top + 1, round(detection.y + detection.height)))
    image = Image.fromarray(frame.pixels[top:bottom, left:right].copy())
    whole = left > _EDGE * width and top > _EDGE * height and right < (1 - _EDGE) * width and bottom < (1 - _EDGE) * height
    box = (left, top, right - left, bottom - top)
    return Crop(image, box, quality(image, detection.score, whole), frame.number, offset)


def quality(image: Image.Image, score: float, whole: bool) -> float:
    """The quality of a crop, see the module. whole: whether its box lies within the frame."""
    grey = np.asarray(image.convert("L").resize((64, 128), Image.Resampling.BILINEAR), np.float64)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    variance = float(laplacian.var())
    return score * min(1.0, image.height / _TALL) * variance / (variance + _SHARP) * (1.0 if whole else _CUT_OFF)
