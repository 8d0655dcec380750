"""Finds the people in a video: detects and tracks them, and keeps the best crops of each tracklet.

The same file with the same settings always gives the same tracklets and crops.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tbps.video.crops import Crop, cut
from tbps.video.decode import Every, Video
from tbps.video.detectors.protocol import Detector
from tbps.video.tally import Tally
from tbps.video.tracking import Appearance, Tracker

OnFrame = Callable[[int, int], None]
"""Called with the frames decoded so far and the frames expected."""


@dataclass(frozen=True, slots=True)
class Tracklet:
    """One person followed through a video. number: in order of appearance, from 0; crops: best first."""

    number: int
    crops: tuple[Crop, ...]


@dataclass(frozen=True, slots=True)
class Following:
    """How people are detected and tracked.

    appearance: maps crops to unit vectors; best_per_track: number of crops kept per tracklet; min_height: least height of a person
    in pixels; also: numbers of frames that are searched in addition to those of `every`.
    """

    detector: Detector
    appearance: Appearance
    every: Every = field(default_factory=Every)
    best_per_track: int = 3
    min_height: int = 64
    also: frozenset[int] = frozenset()


def tracklets(video: Video, name: str, how: Following, tally: Tally, on_frame: OnFrame) -> Iterator[Tracklet]:
    """Yields the tracklet of each person in a video, once the person has left the picture or the video ends.

    on_frame: called with the numbers of frames decoded and expected. Raises DataError as the detector does.
    """
    tracker = Tracker(how.every.seconds if how.every.frames is None else how.every.frames / video.rate)
    best: dict[int, list[Crop]] = {}
    on_frame(0, video.expected)
    for offset, frame in video.frames(name, how.every, tally, how.also):
        found = [d for d in how.detector.detect(frame) if d.height >= how.min_height]
        crops = [cut(frame, detection, offset) for detection in found]
        looks = how.appearance([crop.image for crop in crops]) if crops else np.zeros((0, 1))
        for number, crop in zip(tracker.update(offset, found, looks), crops, strict=True):
            kept = [*best.get(number, []), crop]
            best[number] = sorted(kept, key=lambda c: (-c.quality, c.frame))[: how.best_per_track]
        tally.detections += len(found)
        on_frame(tally.frames, max(video.expected, tally.frames))
        for number in tracker.gone(offset):
            yield _finished(number, best, tally)
    for number in sorted(best):
        yield _finished(number, best, tally)
    on_frame(tally.frames, tally.frames)


def _finished(number: int, best: dict[int, list[Crop]], tally: Tally) -> Tracklet:
    crops = tuple(best.pop(number))
    tally.tracklets += 1
    tally.crops += len(crops)
    return Tracklet(number, crops)
