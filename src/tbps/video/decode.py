"""Decodes videos with PyAV: the frames of one stream, upright and with square pixels, at regular intervals."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from tbps.errors import DataError
from tbps.optional import needed
from tbps.preprocess.image import MAX_PIXELS
from tbps.video.completeness import Completeness
from tbps.video.detectors.protocol import Frame
from tbps.video.pixels import PixelShape, upright_frame
from tbps.video.streams import GUESSED_LENGTH, best_stream, promised_length, started
from tbps.video.tally import Tally
from tbps.video.timeline import FAR, FAR_IN_STREAMS, Timeline

# Only these demuxers, and only from disk: a playlist in a file named .mp4 must not open other files or addresses.
_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,h264,hevc,m4v",
    "protocol_whitelist": "file",
}
_FASTEST = 1000  # frames per second; FFmpeg may guess higher rates when it knows time stamps only
_RETRIES = 3  # attempts to continue reading after a damaged place


@dataclass(frozen=True, slots=True)
class Every:
    """Interval between the frames that are searched: in frames if given, else in seconds."""

    seconds: float = 0.5
    frames: int | None = None


@final
class Video:
    """An opened video, see `open_video`.

    rate: frames per second; expected: estimated number of frames, 0 when unknown; started: when the recording began, UTC. Frames
    are numbered from 0 as they are decoded; frames that cannot be decoded have no number.
    """

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        rate = stream.average_rate or stream.guessed_rate
        self.rate = float(rate) if rate and rate < _FASTEST else 25.0
        length, _ = promised_length(container, stream)
        self.expected = int(stream.frames or max(0.0, length or (container.duration or 0) / 1e6) * self.rate)
        self.started = started(container.metadata, stream.metadata)
        self._completeness = Completeness(path, container, stream)
        self._pixels = PixelShape(stream)

    def frames(self, name: str, every: Every, tally: Tally, also: frozenset[int] = frozenset()) -> Iterator[tuple[float, Frame]]:
        """Yields (seconds since the first frame, frame) for the frames to search.

        also: numbers of additional frames to yield. Frames that cannot be decoded are counted and skipped.
        """
        restarts = self._container.format.name in GUESSED_LENGTH
        timeline = Timeline(self.rate, FAR_IN_STREAMS if restarts else FAR)
        due = 0.0
        for decoded in self._decoded(tally):
            number = tally.frames
            tally.frames += 1
            ratio, stamp = self._pixels.ratio(decoded), _stamp(decoded)
            self._completeness.note_frame(number, stamp, decoded)
            offset = timeline.at(stamp)
            tally.jumps = timeline.jumps
            wanted = number % every.frames == 0 if every.frames is not None else offset >= due - 1e-6
            if not (wanted or number in also) or self._is_damaged(decoded, tally):
                continue
            if wanted and every.frames is None:
                due = max(due + every.seconds, offset + every.seconds / 2)
            tally.looked_at += 1
            yield offset, upright_frame(name, number, decoded, ratio)
        self._completeness.settle(tally, timeline)

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
                place = tally.frames + self._completeness.failed
                tally.incomplete = f"the file cannot be read from packet {place:,} on ({error.strerror})"
                if unreadable > _RETRIES:
                    return
                packets = self._container.demux(self._stream)
                continue
            if packet is None:
                return
            if packet.size and unreadable:
                unreadable, tally.incomplete = 0, None  # reading has resumed after the damage
            self._completeness.note_packet(packet)
            try:
                frames = packet.decode()
            except errors:
                tally.broken += 1
                self._completeness.failed += bool(packet.size)
                continue
            self._pixels.note(packet)
            yield from frames

    def _is_damaged(self, decoded: Any, tally: Tally) -> bool:
        """Whether a frame is corrupt or too large to be searched; counts it if so."""
        damaged = bool(decoded.is_corrupt or decoded.width * decoded.height > MAX_PIXELS)
        tally.broken += damaged
        self._completeness.damaged += damaged
        return damaged


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """Opens a video file. Raises DataError when it cannot be decoded, MissingDependencyError without PyAV."""
    av = needed("av", "reading videos", "video")
    try:
        container = av.open(str(path.absolute()), options=_OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"cannot be opened as a video ({getattr(error, 'strerror', None) or error}); is the file whole?") from error
    with container:
        stream = best_stream(container)
        context = stream.codec_context
        if context.width * context.height > MAX_PIXELS:
            raise DataError(f"{context.width} x {context.height} pixels are more than {MAX_PIXELS:,}; shrink it first")
        stream.thread_type = "SLICE"  # threads that decode frames ahead would report damage at a different packet in each run
        yield Video(path, container, stream)


def _stamp(decoded: Any) -> float | None:
    """The time stamp of a frame in seconds; that of its packet when it has none."""
    stamp = decoded.pts if decoded.pts is not None else decoded.dts
    return None if stamp is None or decoded.time_base is None else float(stamp * decoded.time_base)
