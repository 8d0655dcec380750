"""Videos: decoded with PyAV, looked at every so often, people followed, and the best crops of each tracklet kept.

Pixels that are not square (DVD, some cameras) are made so first, and frames are turned upright: boxes are in square pixels of the
upright picture. The same file under the same settings gives the same tracklets and crops, however often and on whatever day.
"""

import math
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image

from tbps.errors import DataError
from tbps.optional import needed
from tbps.preprocess.image import MAX_PIXELS
from tbps.preprocess.metadata import parse_time
from tbps.video.boxes import damage_of
from tbps.video.crops import Crop, cut
from tbps.video.detectors.protocol import Detector, Frame
from tbps.video.timeline import FAR, FAR_IN_STREAMS, Timeline
from tbps.video.tracking import Appearance, Tracker

# Only these demuxers, and only from disk: a playlist in a file named .mp4 must not open other files or addresses.
_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,h264,hevc,m4v",
    "protocol_whitelist": "file",
}
_GUESSED_LENGTH = ("mpegts", "mpeg", "h264", "hevc", "m4v")  # from the time stamps and the bit rate, not from a header
_EXACT_LENGTH = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
_HIDING = ("vp8", "libvpx")  # codecs of which some packets give no frame
_FASTEST = 1000  # frames a second; where time stamps are all that is known, more is guessed
_RETRIES = 3  # to find what follows a damaged place
_NEARLY_SQUARE = 0.005
_LACKING = 0.75  # usual distances before the first and after the last frame, from which on another one is missing there
_DELAYED = 64  # frames that a decoder may hold back, at most
_LONGEST_PIXEL = 8  # sides of a pixel over each other; what is more cannot be meant

OnFrame = Callable[[int, int], None]
"""Called with the frames decoded so far and the frames expected."""


@dataclass(frozen=True, slots=True)
class Every:
    """How often to look at a video: every so many seconds, or every so many frames."""

    seconds: float = 0.5
    frames: int | None = None


@dataclass(slots=True)
class Tally:
    """What was met in a video so far.

    broken: packets that could not be decoded and frames flagged as corrupt; missing: about how many frames should be there by the
    time stamps and the length of the file, but were not decoded; jumps: places where the time stamps go back or far ahead.
    incomplete: why the true end of the video was not reached, None where it was; remarks: what else its viewer should know.
    """

    frames: int = 0
    looked_at: int = 0
    broken: int = 0
    detections: int = 0
    tracklets: int = 0
    crops: int = 0
    missing: int = 0
    jumps: int = 0
    incomplete: str | None = None
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tracklet:
    """One person followed through a video: numbered in order of appearance, best crops first."""

    number: int
    crops: tuple[Crop, ...]


@final
class Video:
    """An opened video. `started`: the time in its metadata, UTC; `expected`: about how many frames it has, 0 where unknown.

    Numbers of frames count what could be decoded.
    """

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self._path, self._container, self._stream = path, container, stream
        rate = stream.average_rate or stream.guessed_rate
        self.rate = float(rate) if rate and rate < _FASTEST else 25.0
        self._length, self._slack = _length(container, stream)
        self.expected = int(stream.frames or max(0.0, self._length or (container.duration or 0) / 1e6) * self.rate)
        self.started = _started(container.metadata, stream.metadata)
        self._counted = int(stream.frames or _number(stream.metadata.get("NUMBER_OF_FRAMES")))
        self._others = _other_streams(container, stream)
        self._damage = damage_of(path) if "mp4" in container.format.name else None
        self._pixels = _PixelShape(stream)
        self._packets = self._failed = self._discarded = self._damaged = 0
        self._one_frame_each = stream.codec_context.name not in _HIDING  # whether every packet gives one frame
        self._late = 0.0  # from the first packet to the first frame, in seconds
        self._newest = -math.inf  # time stamp of a frame
        self._ends: float | None = None  # of the last packet, in seconds of the time stamps
        self._begins: float | None = None

    def frames(self, name: str, every: Every, tally: Tally, also: frozenset[int] = frozenset()) -> Iterator[tuple[float, Frame]]:
        """The upright frames to look at, their pixels square, with seconds since the first frame.

        also: numbers of further frames to look at. What cannot be decoded is counted and skipped.
        """
        restarts = self._container.format.name in _GUESSED_LENGTH
        timeline = Timeline(self.rate, FAR_IN_STREAMS if restarts else FAR)
        due = 0.0
        for decoded in self._decoded(tally):
            number = tally.frames
            tally.frames += 1
            self._one_frame_each &= not decoded.interlaced_frame  # two fields may come in two packets
            ratio, stamp = self._pixels.ratio(decoded), _stamp(decoded)
            if number == 0 and stamp is not None and self._begins is not None:
                self._late = stamp - self._begins
            self._newest = max(self._newest, stamp) if stamp is not None else self._newest
            offset = timeline.at(stamp)
            tally.jumps = timeline.jumps
            wanted = number % every.frames == 0 if every.frames is not None else offset >= due - 1e-6
            if not (wanted or number in also) or not self._shown(decoded, tally):
                continue
            if wanted and every.frames is None:
                due = max(due + every.seconds, offset + every.seconds / 2)
            tally.looked_at += 1
            yield offset, self._frame(name, number, decoded, ratio)
        self._settle(tally, timeline)

    def _settle(self, tally: Tally, timeline: Timeline) -> None:
        """What the end of the file and the gaps between time stamps say about frames that were not decoded."""
        cut_off = 0
        if self._length is not None and self._ends is not None and self._begins is not None and not tally.jumps:
            # Matroska's lengths count from 0, or from the first picture, depending on who wrote them.
            begins = min(0.0, self._begins) if self._container.format.name == "matroska,webm" else self._begins
            short = begins + self._length - self._ends
            if short > max(self._slack, 1.5 * timeline.usual):
                cut_off = max(1, round(short / timeline.usual))
                lasts, length = (f"{seconds:,.1f}" for seconds in (self._length - short, self._length))
                tally.incomplete = f"only {lasts} of the {length} seconds that its header promises could be read"
        tally.remarks += self._others
        if tally.incomplete is None:
            tally.incomplete = self._damage
        missing = max(self._at_the_ends(tally, timeline) + timeline.missing + cut_off, self._failed)
        if self._counted:  # by the file itself; more cannot be missing
            missing = min(missing, max(0, self._counted - self._discarded - tally.frames))
        if self._one_frame_each:  # joined recordings of another codec are swallowed by the decoder without an error
            missing = max(missing, self._packets - self._discarded - tally.frames)
        tally.missing = missing
        if missing:
            why = "could not be decoded" if missing == self._failed else "could not be decoded or are not in the file"
            tally.remarks.append(f"{missing:,} of about {missing + tally.frames:,} frames {why}")
        if self._damaged:
            tally.remarks.append(f"{self._damaged:,} decoded frames were damaged or too large and were not looked at")
        if tally.jumps:
            places = "in one place" if tally.jumps == 1 else f"in {tally.jumps:,} places"
            tally.remarks.append(f"its time stamps go back or far ahead {places}; time was counted on from there")

    def _at_the_ends(self, tally: Tally, timeline: Timeline) -> int:
        """About how many frames are lacking from the first packet to the first frame, and from the last one to the last packet."""
        usual = timeline.usual
        after = 0.0
        if self._ends is not None and not tally.jumps and math.isfinite(self._newest):
            after = self._ends - self._newest - usual
        return sum(round(lacking / usual) for lacking in (self._late, after) if lacking > _LACKING * usual)

    def _decoded(self, tally: Tally) -> Iterator[Any]:
        errors = needed("av", "reading videos", "video").FFmpegError
        packets = self._container.demux(self._stream)
        unreadable = 0
        while True:
            try:
                packet = next(packets, None)
            except errors as error:
                tally.broken += 1
                unreadable += 1
                tally.incomplete = f"the file cannot be read on from packet {tally.frames + self._failed:,} ({error.strerror})"
                if unreadable > _RETRIES:
                    return
                packets = self._container.demux(self._stream)
                continue
            if packet is None:
                return
            if packet.size and unreadable:
                unreadable, tally.incomplete = 0, None  # what follows the damage was found
            self._note(packet)
            try:
                frames = packet.decode()
            except errors:
                tally.broken += 1
                self._failed += bool(packet.size)
                continue
            self._pixels.note(packet)
            yield from frames

    def _note(self, packet: Any) -> None:
        """Keeps where the packets of the video begin and end."""
        self._discarded += packet.is_discard
        self._packets += bool(packet.size)
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or not packet.size or packet.is_discard:
            return
        begins = float(stamp * packet.time_base)
        ends = begins + float((packet.duration or 0) * packet.time_base)
        self._begins = begins if self._begins is None else min(self._begins, begins)
        self._ends = ends if self._ends is None else max(self._ends, ends)

    def _frame(self, name: str, number: int, decoded: Any, ratio: float) -> Frame:
        pixels = decoded.to_ndarray(format="rgb24")
        stored = pixels.shape
        pixels = _square(pixels, ratio)
        stretch = pixels.shape[1] / stored[1], pixels.shape[0] / stored[0]
        swapped, mirrored, upside_down = _orientation(decoded)
        if swapped:
            pixels, stretch = pixels.transpose(1, 0, 2), (stretch[1], stretch[0])
        upright = pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
        return Frame(name, number, np.ascontiguousarray(upright), stretch)

    def _shown(self, decoded: Any, tally: Tally) -> bool:
        """Whether a frame can be looked at: whole, and not so large that it must be refused."""
        good = not decoded.is_corrupt and decoded.width * decoded.height <= MAX_PIXELS
        tally.broken += not good
        self._damaged += not good
        return good


@final
class _PixelShape:
    """The width of a stored pixel over its height, which may change in the middle of a video."""

    def __init__(self, stream: Any) -> None:
        self._context = stream.codec_context
        self._first = self._context.sample_aspect_ratio
        self._of_file = stream.sample_aspect_ratio
        self._by_stamp: dict[int, Any] = {}  # of frames that are still to come, where it is another than at first

    def note(self, packet: Any) -> None:
        """Keeps the shape that the decoder has read from a packet, whose frame may come out later."""
        now = self._context.sample_aspect_ratio
        if now and now != self._first and packet.pts is not None:
            self._by_stamp[packet.pts] = now
            if len(self._by_stamp) > _DELAYED:
                del self._by_stamp[next(iter(self._by_stamp))]

    def ratio(self, decoded: Any) -> float:
        """That of the container where it says one, else of the picture; 1 where it cannot be meant."""
        without_stamp = self._context.sample_aspect_ratio if decoded.pts is None else self._first
        own = self._by_stamp.pop(decoded.pts, without_stamp)
        ratio = own if own and own != self._first else self._of_file or own
        return float(ratio) if ratio and 1 / _LONGEST_PIXEL <= ratio <= _LONGEST_PIXEL else 1.0


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """Opens a video file. Raises DataError when it is none, MissingDependencyError without PyAV."""
    av = needed("av", "reading videos", "video")
    try:
        container = av.open(str(path.absolute()), options=_OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"cannot be opened as a video ({getattr(error, 'strerror', None) or error}); is the file whole?") from error
    with container:
        stream = _best_stream(container)
        context = stream.codec_context
        if context.width * context.height > MAX_PIXELS:
            raise DataError(f"{context.width} x {context.height} pixels are more than {MAX_PIXELS:,}; shrink it first")
        stream.thread_type = "SLICE"  # with threads that work ahead, damage would be met at other packets from run to run
        yield Video(path, container, stream)


def _films(container: Any) -> list[Any]:
    """The video streams that can be decoded, without covers, which are single pictures."""
    return [s for s in container.streams.video if s.codec_context is not None and not _is_cover(s)]


def _is_cover(stream: Any) -> bool:
    flags = type(stream.disposition)
    return bool(stream.disposition & (flags.attached_pic | flags.timed_thumbnails))


def _best_stream(container: Any) -> Any:
    """The stream that the file names as its default, else the first of the largest."""
    films = _films(container)
    if not films:
        covers = any(_is_cover(stream) for stream in container.streams.video)
        what = "only a cover" if covers else "no video stream of a known codec"
        raise DataError(f"holds no pictures that can be decoded ({what})")

    def rank(stream: Any) -> tuple[bool, int]:
        return bool(stream.disposition & type(stream.disposition).default), stream.codec_context.width * stream.codec_context.height

    return max(films, key=rank)


def _other_streams(container: Any, stream: Any) -> list[str]:
    films = _films(container)
    if len(films) < 2:
        return []
    size = f"{stream.codec_context.width} x {stream.codec_context.height}"
    others = ", ".join(f"{s.index}: {s.codec_context.width} x {s.codec_context.height}" for s in films if s.index != stream.index)
    return [f"of its {len(films)} video streams only number {stream.index} ({size}) was looked at, not {others}"]


def _length(container: Any, stream: Any) -> tuple[float | None, float]:
    """How many seconds of pictures the file's header promises, None where it does not, and by how much that may be wrong."""
    loosely = max(2.0, (container.duration or 0) / 20e6)
    if container.format.name == "avi" and stream.frames and stream.average_rate and stream.duration:
        told = float(stream.frames / stream.average_rate)  # FFmpeg shortens the duration of a file that was cut off
        return max(told, float(stream.duration * stream.time_base)), 0.0
    if stream.duration and container.format.name not in _GUESSED_LENGTH:
        return float(stream.duration * stream.time_base), 0.0 if container.format.name in _EXACT_LENGTH else loosely
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if found is not None:
        length = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
        return min(length, container.duration / 1e6 if container.duration else length), 0.0
    if not container.duration or container.format.name in _GUESSED_LENGTH:
        return None, 0.0
    exact = container.format.name in _EXACT_LENGTH and len(container.streams) == 1  # sound may be longer
    return container.duration / 1e6, 0.0 if exact else loosely


def _number(text: str | None) -> int:
    return int(text) if text is not None and re.fullmatch(r"\d{1,12}", text) else 0


def _stamp(decoded: Any) -> float | None:
    """The time stamp of a frame in seconds, that of its packet where it has none."""
    stamp = decoded.pts if decoded.pts is not None else decoded.dts
    return None if stamp is None or decoded.time_base is None else float(stamp * decoded.time_base)


def _orientation(decoded: Any) -> tuple[bool, bool, bool]:
    """How a stored picture is turned upright: rows and columns swapped, then mirrored, then upside down.

    By the display matrix (a b u, c d v, x y w): a point goes to (a x + c y, b x + d y), y downwards. `rotation` knows no mirrors.
    """
    matrix = decoded.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _square(pixels: np.ndarray, ratio: float) -> np.ndarray:
    """Pixels that were `ratio` times as wide as high, made square by enlarging the shorter side."""
    height, width = pixels.shape[:2]
    size = round(width * max(ratio, 1.0)), round(height * max(1 / ratio, 1.0))
    if abs(ratio - 1) < _NEARLY_SQUARE or size[0] * size[1] > MAX_PIXELS:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


@dataclass(frozen=True, slots=True)
class Following:
    """How people are found, followed and kept. appearance: crops to unit vectors; min_height in pixels; also: frames to look at
    beside those of `every`."""

    detector: Detector
    appearance: Appearance
    every: Every = field(default_factory=Every)
    best_per_track: int = 3
    min_height: int = 64
    also: frozenset[int] = frozenset()


def tracklets(video: Video, name: str, how: Following, tally: Tally, on_frame: OnFrame) -> Iterator[Tracklet]:
    """Everybody in a video, each when they are gone or the video ends. `on_frame`: frames decoded and expected."""
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


def _started(*metadata: Any) -> datetime | None:
    """When a recording began; cameras without a clock write the year 1904 or 1970."""
    for key in ("com.apple.quicktime.creationdate", "creation_time"):
        for entries in metadata:
            time = parse_time(entries.get(key))
            if time is not None and time.year > 1970:
                return time
    return None
