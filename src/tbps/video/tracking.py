"""Tracks people: associates detections in successive frames by position and appearance.

affinity = 0.5 place + 0.5 look
    place    IoU with the box predicted from the last box and velocity; without overlap (1 - distance / reach) / 2, with
             reach = 0.5 + 0.6 (seconds since seen), in heights of the box; 0 for distances above the reach
    look     cosine of appearance vectors

The assignment with the largest total affinity is chosen (Hungarian method). A pair needs place > 0, look >= LOOK, and heights
within a factor of two. A track ends when its person is not seen for PATIENCE seconds or 3.5 intervals between searched frames,
whichever is longer; the same person starts another tracklet later.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from PIL import Image

from tbps.optional import needed
from tbps.video.detectors.protocol import Detection, iou

PATIENCE = 2.0
LOOK = 0.5
_NEWEST = 0.3  # weight of the newest detection in the moving averages of a track's appearance and velocity
_STRIPES, _LEVELS = 8, 4

Appearance = Callable[[Sequence[Image.Image]], Float[np.ndarray, "N dim"]]
"""Describes crops by unit vectors, one row per crop; similar people have similar rows."""


@dataclass(slots=True)
class Track:
    number: int
    box: np.ndarray  # left, top, right, bottom
    velocity: np.ndarray  # of the centre, in pixels per second
    look: np.ndarray
    seen: float  # seconds
    hits: int = 1

    def expected(self, now: float) -> np.ndarray:
        return np.asarray(self.box + np.tile(self.velocity, 2) * (now - self.seen))


@final
class Tracker:
    """Assigns detections to people, numbered from 0 in order of appearance. Deterministic."""

    def __init__(self, every: float) -> None:
        """every: seconds between the frames that are searched."""
        self._assign = needed("scipy.optimize", "tracking", "video").linear_sum_assignment
        self._patience = max(PATIENCE, 3.5 * every)
        self._tracks: list[Track] = []
        self._next = 0

    def update(self, now: float, found: Sequence[Detection], looks: Float[np.ndarray, "N dim"]) -> list[int]:
        """Returns the person's number for each detection at `now` seconds. looks: unit appearance vectors of the detections."""
        boxes = np.array([(d.x, d.y, d.x + d.width, d.y + d.height) for d in found]).reshape(-1, 4)
        numbers = [-1] * len(found)
        if self._tracks and found:
            affinity = np.stack([affinity_of(track, now, boxes, looks) for track in self._tracks])
            for row, column in zip(*self._assign(affinity, maximize=True), strict=True):
                if affinity[row, column] > 0:
                    self._follow(self._tracks[row], now, boxes[column], looks[column])
                    numbers[column] = self._tracks[row].number
        for column, number in enumerate(numbers):
            if number < 0:
                self._tracks.append(Track(self._next, boxes[column], np.zeros(2), looks[column], now))
                numbers[column], self._next = self._next, self._next + 1
        return numbers

    def gone(self, now: float) -> list[int]:
        """The numbers of people whose tracks end at `now` seconds; the tracker drops them."""
        lost = [track.number for track in self._tracks if now - track.seen > self._patience]
        self._tracks = [track for track in self._tracks if track.number not in lost]
        return lost

    def _follow(self, track: Track, now: float, box: np.ndarray, look: np.ndarray) -> None:
        elapsed = max(now - track.seen, 1e-3)
        velocity = (box[:2] + box[2:] - track.box[:2] - track.box[2:]) / 2 / elapsed
        share = 1.0 if track.hits == 1 else _NEWEST
        track.velocity = (1 - share) * track.velocity + share * velocity
        blended = (1 - _NEWEST) * track.look + _NEWEST * look
        track.look = blended / max(float(np.linalg.norm(blended)), 1e-12)
        track.box, track.seen, track.hits = box, now, track.hits + 1


def affinity_of(track: Track, now: float, boxes: np.ndarray, looks: np.ndarray) -> np.ndarray:
    expected = track.expected(now)[None]
    overlap = iou(expected, boxes)[0]
    heights = boxes[:, 3] - boxes[:, 1]
    tall = track.box[3] - track.box[1]
    distance = np.linalg.norm((boxes[:, :2] + boxes[:, 2:] - expected[:, :2] - expected[:, 2:]) / 2, axis=1)
    reach = (0.5 + 0.6 * (now - track.seen)) * np.maximum(heights, tall)
    place = np.maximum(overlap, np.maximum(0, 1 - distance / reach) / 2)
    look = looks @ track.look
    fits = (place > 0) & (look >= LOOK) & (np.maximum(heights, tall) <= 2 * np.minimum(heights, tall))
    return np.asarray(np.where(fits, 0.5 * place + 0.5 * look, 0.0))


def colour_signature(crops: Sequence[Image.Image]) -> Float[np.ndarray, "N 512"]:
    """Appearance vectors from colours, without a model: square roots of colour histograms of eight horizontal stripes.

    Unit vectors, whose cosines are mean Bhattacharyya coefficients. Only the middle 60 % of the width is used, since the sides show
    the background. `Encoder.encode_images` can be used instead.
    """
    rows = np.empty((len(crops), _STRIPES * _LEVELS**3))
    for number, crop in enumerate(crops):
        small = np.asarray(crop.convert("RGB").resize((20, 8 * _STRIPES), Image.Resampling.BILINEAR), np.int64)[:, 4:16]
        bins = (small // (256 // _LEVELS)) @ (_LEVELS**2, _LEVELS, 1)
        stripes = bins.reshape(_STRIPES, -1)
        rows[number] = np.concatenate([np.sqrt(np.bincount(stripe, minlength=_LEVELS**3)) for stripe in stripes])
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
