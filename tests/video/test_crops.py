"""Crops of people and their quality."""

import cv2
import numpy as np
import pytest

from tbps.video.crops import cut, quality
from tbps.video.detectors.protocol import Detection, Frame


def test_quality_grows_with_score_size_sharpness_and_wholeness() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 4)
    sharp, dull = (Frame("x", 0, pixels) for pixels in (noise, blurred))
    base = cut(sharp, Detection(50, 50, 60, 120, 0.8)).quality
    assert cut(sharp, Detection(50, 50, 60, 120, 0.4)).quality == pytest.approx(base / 2)
    assert cut(dull, Detection(50, 50, 60, 120, 0.8)).quality < base / 2
    assert cut(sharp, Detection(50, 50, 60, 240, 0.8)).quality > 1.5 * base
    touching = [Detection(0, 50, 60, 120, 0.8), Detection(50, 0, 60, 120, 0.8), Detection(140, 50, 60, 120, 0.8)]
    for detection in (*touching, Detection(50, 180, 60, 120, 0.8)):
        crop = cut(sharp, detection)
        assert crop.quality == pytest.approx(quality(crop.image, 0.8, True) / 2)
