"""The Detector protocol, and functions on boxes: suppression, IoU, clipping."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True, slots=True)
class Frame:
    """An upright picture with square pixels to search.

    source: name of the photograph or video; number: number of the frame, from 0; stretch: width and height, each divided by that of
    the stored picture, whose pixels need not be square.
    """

    source: str
    number: int
    pixels: UInt8[np.ndarray, "height width 3"]  # RGB
    stretch: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Detection:
    """A person's box in pixels of the upright picture: left, top, width, height. score: in [0, 1]."""

    x: float
    y: float
    width: float
    height: float
    score: float


class Detector(Protocol):
    """Protocol of person detectors.

    fingerprint: equal for detectors that give equal detections; advice: what the user can do when nobody is found.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def advice(self) -> str: ...

    def detect(self, frame: Frame) -> list[Detection]:
        """The people in a frame, best first. Deterministic; may be called from several threads."""
        ...


def suppress(found: Iterable[Detection], overlap: float) -> list[tuple[Detection, int]]:
    """Non-maximum suppression: the best boxes, no two of which overlap by more than `overlap` (IoU), best first.

    Each is returned with the number of boxes that it replaces, itself included. Equal scores are ordered by position, so that the
    order of the input has no effect.
    """
    left = sorted(found, key=lambda d: (-d.score, d.x, d.y, d.width, d.height))
    corners = np.array([(d.x, d.y, d.x + d.width, d.y + d.height) for d in left]).reshape(-1, 4)
    alive = np.ones(len(left), bool)
    kept: list[tuple[Detection, int]] = []
    for number, detection in enumerate(left):
        if alive[number]:
            taken = alive & (iou(corners[number : number + 1], corners)[0] > overlap)
            taken[number] = True
            alive &= ~taken
            kept.append((detection, int(taken.sum())))
    return kept


def iou(ours: Float[np.ndarray, "N 4"], theirs: Float[np.ndarray, "M 4"]) -> Float[np.ndarray, "N M"]:
    """Intersection over union of boxes (left, top, right, bottom)."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1) for boxes in (ours, theirs)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / np.maximum(union, 1e-12))


def clip(found: Iterable[Detection], width: int, height: int) -> list[Detection]:
    """Clips boxes to a picture, best first; boxes outside or of less than one pixel are dropped."""
    kept = []
    for d in found:
        left, top = max(0.0, d.x), max(0.0, d.y)
        right, bottom = min(float(width), d.x + d.width), min(float(height), d.y + d.height)
        if right - left >= 1 and bottom - top >= 1:
            kept.append(Detection(left, top, right - left, bottom - top, d.score))
    return sorted(kept, key=lambda d: (-d.score, d.x, d.y, d.width, d.height))
