"""Counts of one video: what was decoded, found and missed."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Counts of one video so far.

    frames: decoded frames; looked_at: frames given to the detector; broken: packets that could not be decoded and frames that are
    marked as corrupt; missing: estimated number, from time stamps and the length of the file, of frames that were not decoded;
    jumps: places where time stamps go back or far ahead; incomplete: why the end of the video was not reached, None when it was;
    remarks: for the user.
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
