"""Settings of the search for people in scenes and videos, and the report of each video."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from tbps.config import Settings
from tbps.errors import SettingsError
from tbps.video import Detector, Tally

CROP_COLUMNS: Mapping[str, Any] = {
    "box_x": 0,
    "box_y": 0,
    "box_width": 0,
    "box_height": 0,
    "quality": 0.0,
    "frame": 0,
    "offset_seconds": 0.0,
    "tracklet": "",
    "video": "",
}
"""The columns of a person's crop, each with an example value of its type."""

OnVideo = Callable[[str, int, int], None]


class FootageSettings(Settings):
    """Settings of the search for people in scenes and videos.

    photographs: search for people in photographs too, instead of taking each as the crop of one person; follow: appearance by which
    detections of one person are joined to a tracklet, the colours of their clothes or the embeddings of the model.
    """

    photographs: bool = False
    every: float = Field(default=0.5, gt=0, description="seconds between the frames that are searched")
    every_frames: int | None = Field(default=None, ge=1, description="frames between those that are searched, in place of seconds")
    best_per_track: int = Field(default=3, ge=1)
    min_height: int = Field(default=64, ge=1, description="height of a person in pixels")
    follow: Literal["colours", "model"] = "colours"


@dataclass(frozen=True, slots=True)
class Footage:
    """How to index scenes and videos.

    detector: None for the built-in one. camera, start: for candidates whose metadata have none; start is the start time of a video.
    on_video: called with name, frames decoded and frames expected. within: the cameras to which the caller may add, None for all.
    committing: called with the ids of new rows; the context manager that it returns is held while they are committed.
    """

    settings: FootageSettings = field(default_factory=FootageSettings)
    detector: Detector | None = None
    camera: str | None = None
    start: datetime | None = None
    on_video: OnVideo | None = None
    within: tuple[str, ...] | None = None
    committing: Callable[[Sequence[str]], AbstractContextManager[None]] | None = None


@dataclass(frozen=True, slots=True)
class VideoReport:
    """Counts of one video (see `tbps.video.Tally`). incomplete: why its end was not reached, None when it was."""

    name: str
    frames: int
    looked_at: int
    broken: int
    detections: int
    tracklets: int
    crops: int
    missing: int = 0
    jumps: int = 0
    incomplete: str | None = None

    @classmethod
    def of(cls, name: str, tally: Tally) -> "VideoReport":
        counts = asdict(tally)
        return cls(name, **{entry.name: counts[entry.name] for entry in fields(cls) if entry.name in counts})


def parse_every(text: str) -> dict[str, Any]:
    """Parses an interval: "0.5" or "0.5s" (seconds) or "12f" (frames), to values of FootageSettings.

    Raises SettingsError on anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|f)?", text.strip())
    if found is None or not float(found[1]) or (found[2] == "f" and "." in found[1]):
        raise SettingsError(f"--every {text!r} is neither seconds such as 0.5 nor frames such as 12f")
    return {"every_frames": int(found[1])} if found[2] == "f" else {"every": float(found[1])}
