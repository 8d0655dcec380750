"""Reads the header of a video file: which stream to decode, its length, and when the recording began."""

import re
from datetime import datetime
from typing import Any

from tbps.errors import DataError
from tbps.preprocess.metadata import parse_time

# Formats without a length in the header; FFmpeg estimates it from time stamps and bit rate.
GUESSED_LENGTH = ("mpegts", "mpeg", "h264", "hevc", "m4v")
_EXACT_LENGTH = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")


def _films(container: Any) -> list[Any]:
    """The video streams that can be decoded; covers are single pictures and left out."""
    return [s for s in container.streams.video if s.codec_context is not None and not _is_cover(s)]


def _is_cover(stream: Any) -> bool:
    flags = type(stream.disposition)
    return bool(stream.disposition & (flags.attached_pic | flags.timed_thumbnails))


def best_stream(container: Any) -> Any:
    """The default video stream of a file, else the first of its largest streams. Raises DataError when none can be decoded."""
    films = _films(container)
    if not films:
        covers = any(_is_cover(stream) for stream in container.streams.video)
        what = "only a cover" if covers else "no video stream of a known codec"
        raise DataError(f"holds no pictures that can be decoded ({what})")

    def rank(stream: Any) -> tuple[bool, int]:
        return bool(stream.disposition & type(stream.disposition).default), stream.codec_context.width * stream.codec_context.height

    return max(films, key=rank)


def other_streams(container: Any, stream: Any) -> list[str]:
    """A list with a remark on the video streams other than `stream`; empty when there are none."""
    films = _films(container)
    if len(films) < 2:
        return []
    size = f"{stream.codec_context.width} x {stream.codec_context.height}"
    others = ", ".join(f"{s.index}: {s.codec_context.width} x {s.codec_context.height}" for s in films if s.index != stream.index)
    return [f"only stream {stream.index} ({size}) of its {len(films)} video streams was searched, not {others}"]


def promised_length(container: Any, stream: Any) -> tuple[float | None, float]:
    """The length in seconds according to the file's header, None when it has none; and the largest error of that length."""
    loosely = max(2.0, (container.duration or 0) / 20e6)
    if container.format.name == "avi" and stream.frames and stream.average_rate and stream.duration:
        length = float(stream.frames / stream.average_rate)  # FFmpeg shortens the duration of a file that was cut off
        return max(length, float(stream.duration * stream.time_base)), 0.0
    if stream.duration and container.format.name not in GUESSED_LENGTH:
        return float(stream.duration * stream.time_base), 0.0 if container.format.name in _EXACT_LENGTH else loosely
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if found is not None:
        length = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
        return min(length, container.duration / 1e6 if container.duration else length), 0.0
    if not container.duration or container.format.name in GUESSED_LENGTH:
        return None, 0.0
    exact = container.format.name in _EXACT_LENGTH and len(container.streams) == 1  # sound may be longer
    return container.duration / 1e6, 0.0 if exact else loosely


def whole_number(text: str | None) -> int:
    """Parses a text of at most 12 digits; 0 for any other text."""
    return int(text) if text is not None and re.fullmatch(r"\d{1,12}", text) else 0


def started(*metadata: Any) -> datetime | None:
    """The time when a recording began, UTC. Years up to 1970 are ignored: cameras without a clock write 1904 or 1970."""
    for key in ("com.apple.quicktime.creationdate", "creation_time"):
        for entries in metadata:
            time = parse_time(entries.get(key))
            if time is not None and time.year > 1970:
                return time
    return None
