"""Videos: decoded with PyAV, looked at every so often, people followed, and the best crops of each tracklet kept.

The same file under the same settings gives the same tracklets and crops, however often and on whatever day.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, final

import numpy as np

from tbps.errors import DataError
from tbps.optional import needed
from tbps.preprocess.image import MAX_PIXELS
from tbps.search.columns import parse_time
from tbps.search.crops import Crop, cut
from tbps.search.detect import Detector, Frame
from tbps.search.track import Appearance, Tracker

# Only these demuxers, and only from disk: a playlist in a file named .mp4 must not open other files or addresses.
_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,h264,hevc,m4v",
    "protocol_whitelist": "file",
}
_TURNS = {0: 0, 90: 1, 180: 2, -180: 2, -90: 3}  # degrees counterclockwise -> quarter turns of np.rot90

OnFrame = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Every:
    """How often to look at a video: every so many seconds, or every so many frames."""

    seconds: float = 0.5
    frames: int | None = None


@dataclass(slots=True)
class Tally:
    """What was met in a video so far. broken: packets that could not be decoded and frames flagged as corrupt."""

    frames: int = 0
    looked_at: int = 0
    broken: int = 0
    detections: int = 0
    tracklets: int = 0
    crops: int = 0


@dataclass(frozen=True, slots=True)
class Tracklet:
    """One person followed through a video: numbered in order of appearance, best crops first."""

    number: int
    crops: tuple[Crop, ...]


@final
class Video:
    """An opened video. `started`: the time in its metadata, UTC; `expected`: about how many frames it has, 0 where unknown."""

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self._path, self._container, self._stream = path, container, stream
        rate = stream.average_rate or stream.guessed_rate
        self.rate = float(rate) if rate else 25.0
        length = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
        self.expected = int(stream.frames or max(0.0, length) * self.rate)
        self.started = _started(container.metadata, stream.metadata)

    def frames(self, name: str, every: Every, tally: Tally) -> Iterator[tuple[float, Frame]]:
        """The upright frames to look at, with seconds since the first frame. What cannot be decoded is counted and skipped."""
        first: float | None = None
        due = 0.0
        for decoded in self._decoded(tally):
            number = tally.frames
            tally.frames += 1
            time = decoded.time if decoded.time is not None else number / self.rate
            first = time if first is None else first
            offset = time - first
            if (number % every.frames if every.frames is not None else offset < due - 1e-6) or not self._shown(decoded, tally):
                continue
            due = max(due + every.seconds, offset + every.seconds / 2) if every.frames is None else due
            tally.looked_at += 1
            yield offset, Frame(name, number, _upright(decoded))

    def _decoded(self, tally: Tally) -> Iterator[Any]:
        errors = needed("av", "reading videos", "video").FFmpegError
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except errors:  # the rest of the file cannot be found any more
                tally.broken += 1
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            except errors:
                tally.broken += 1
                continue
            yield from frames

    @staticmethod
    def _shown(decoded: Any, tally: Tally) -> bool:
        """Whether a frame can be looked at: whole, and not so large that it must be refused."""
        good = not decoded.is_corrupt and decoded.width * decoded.height <= MAX_PIXELS
        tally.broken += not good
        return good


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """Opens a video file. Raises DataError when it is none, MissingDependencyError without PyAV."""
    av = needed("av", "reading videos", "video")
    try:
        container = av.open(str(path.absolute()), options=_OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"cannot be opened as a video ({getattr(error, 'strerror', None) or error}); is the file whole?") from error
    with container:
        stream = next(iter(container.streams.video), None)
        if stream is None or stream.codec_context is None:
            raise DataError("holds no pictures that can be decoded (no video stream of a known codec)")
        context = stream.codec_context
        if context.width * context.height > MAX_PIXELS:
            raise DataError(f"{context.width} x {context.height} pixels are more than {MAX_PIXELS:,}; shrink it first")
        stream.thread_type = "SLICE"  # with threads that work ahead, damage would be met at other packets from run to run
        yield Video(path, container, stream)


@dataclass(frozen=True, slots=True)
class Following:
    """How people are found, followed and kept. appearance: crops to unit vectors; min_height in pixels."""

    detector: Detector
    appearance: Appearance
    every: Every = field(default_factory=Every)
    best_per_track: int = 3
    min_height: int = 64


def tracklets(video: Video, name: str, how: Following, tally: Tally, on_frame: OnFrame) -> Iterator[Tracklet]:
    """Everybody in a video, each when they are gone or the video ends. `on_frame`: frames decoded and expected."""
    tracker = Tracker(how.every.seconds if how.every.frames is None else how.every.frames / video.rate)
    best: dict[int, list[Crop]] = {}
    on_frame(0, video.expected)
    for offset, frame in video.frames(name, how.every, tally):
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


def _upright(decoded: Any) -> np.ndarray:
    pixels = decoded.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, _TURNS.get(round(decoded.rotation / 90) * 90, 0)))


def _started(*metadata: Any) -> datetime | None:
    """When a recording began; cameras without a clock write the year 1904 or 1970."""
    for key in ("com.apple.quicktime.creationdate", "creation_time"):
        for entries in metadata:
            time = parse_time(entries.get(key))
            if time is not None and time.year > 1970:
                return time
    return None
