"""A hit: one image of a gallery in the answer to a query."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tbps.preprocess.metadata import JSON


@dataclass(frozen=True, slots=True)
class Group:
    """Images with the same value in a column, such as a tracklet. A grouped search returns the best image of each group.

    column, value: the shared value and its column; an image without a value is a group of its own. count: number of
    images that pass the filters; first_seen, last_seen: earliest and latest known time, ISO 8601; ids: those of the images, best
    first, at most a thousand.
    """

    column: str
    value: Any
    count: int
    first_seen: str | None
    last_seen: str | None
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """One image of a gallery in the answer to a query.

    rank: from 1; score: cosine similarity in [-1, 1]; id: stable and opaque; source: the image's path below `root`, the folder
    that was indexed; captured_at: ISO 8601 without zone, in UTC; attributes: all other metadata given at indexing; thumbnail: JPEG
    bytes; chance: calibrated probability that the hit is right, None without calibration; group: the group of which it is the best.
    """

    rank: int
    score: float
    id: str
    source: str
    root: str = ""
    camera: str | None = None
    captured_at: str | None = None
    identity: str | None = None
    attributes: Mapping[str, JSON] = field(default_factory=dict)
    thumbnail: bytes = field(default=b"", repr=False)
    chance: float | None = None
    group: Group | None = None

    @property
    def path(self) -> Path | None:
        """The file at the time of indexing; None for a picture that was given in memory."""
        return Path(self.root) / self.source if self.root else None

    def as_dict(self) -> dict[str, Any]:
        """The hit as JSON values, without the thumbnail."""
        return {
            "rank": self.rank,
            "score": self.score,
            "id": self.id,
            "source": self.source,
            "path": None if self.path is None else str(self.path),
            "camera": self.camera,
            "captured_at": self.captured_at,
            "identity": self.identity,
            "attributes": dict(self.attributes),
            "chance": self.chance,
            "group": None if self.group is None else asdict(self.group),
        }
