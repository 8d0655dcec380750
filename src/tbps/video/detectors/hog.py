"""The built-in person detector of OpenCV (HOG)."""

from typing import Any, final

import numpy as np

from tbps.errors import MissingDependencyError
from tbps.video.detectors.protocol import Detection, Frame, clip, suppress

HOG = "hog"
"""Name of the built-in detector."""


@final
class HogDetector:
    """Histograms of oriented gradients and a linear SVM (Dalal and Triggs 2005), as built into OpenCV 4; nothing to download.

    Finds people who stand or walk upright, are completely visible and not small. The longer side is resized to LONGEST pixels, and
    the edge is repeated outwards, since the SVM needs background around a person. A hit needs at least SUPPORT overlapping windows.
    score = 1 - exp(-distance from the SVM's plane).
    """

    LONGEST = 640
    BORDER = 0.15
    SUPPORT = 5
    OVERLAP = 0.4
    # Width and height of a person as shares of those of a window, which is wider than most people and 128 pixels high for people of
    # about 100 pixels.
    PERSON = (0.65, 0.8)

    def __init__(self, min_score: float = 0.5) -> None:
        import cv2  # slow

        self._cv: Any = cv2
        if int(self._cv.__version__.partition(".")[0]) > 4:
            raise MissingDependencyError(
                f"OpenCV {self._cv.__version__} has no HOG detector any more; run: pip install 'opencv-python-headless>=4.10,<5', "
                "or give --detector MODEL.onnx"
            )
        self._min_score = min_score

    @property
    def fingerprint(self) -> str:
        return f"hog-1 {self._min_score}"

    @property
    def advice(self) -> str:
        return (
            "the built-in detector finds whole people who stand or walk; lower --min-height or --min-score, "
            "or give --detector MODEL.onnx (YOLO, DETR)"
        )

    def detect(self, frame: Frame) -> list[Detection]:
        cv, (height, width) = self._cv, frame.pixels.shape[:2]
        scale = self.LONGEST / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv.resize(frame.pixels, size, interpolation=cv.INTER_AREA if scale < 1 else cv.INTER_LINEAR)
        edge = round(self.BORDER * self.LONGEST)
        ground = cv.copyMakeBorder(small, edge, edge, edge, edge, cv.BORDER_REPLICATE)
        hog = cv.HOGDescriptor()
        hog.setSVMDetector(cv.HOGDescriptor_getDefaultPeopleDetector())
        # Without OpenCV's grouping, whose result depends on the order in which threads finish.
        boxes, margins = hog.detectMultiScale(
            cv.cvtColor(ground, cv.COLOR_RGB2BGR), winStride=(8, 8), padding=(8, 8), scale=1.05, groupThreshold=0
        )
        hits = [
            Detection(float(box[0]), float(box[1]), float(box[2]), float(box[3]), float(1 - np.exp(-margin)))
            for box, margin in zip(boxes, np.ravel(margins), strict=True)
        ]
        kept = [hit for hit, support in suppress(hits, self.OVERLAP) if support >= self.SUPPORT and hit.score >= self._min_score]
        people = [self._person(hit, edge, scale) for hit in kept]
        return clip(people, width, height)

    def _person(self, hit: Detection, edge: int, scale: float) -> Detection:
        wide, tall = self.PERSON
        left, top = hit.x + hit.width * (1 - wide) / 2 - edge, hit.y + hit.height * (1 - tall) / 2 - edge
        return Detection(left / scale, top / scale, hit.width * wide / scale, hit.height * tall / scale, hit.score)
