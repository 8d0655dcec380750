"""One image of a gallery as the answer of a search."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tbps.preprocess.metadata import JSON


@dataclass(frozen=True, slots=True)
class Group:
    """The images of a gallery that share a value with a hit, which is the best of them.

    column, value: what they share; an image without a value stands alone. count: how many pass the filter; first_seen, last_seen:
    the span of their times, as far as known; ids: theirs, best first, at most a thousand.
    """

    column: str
    value: Any
    count: int
    first_seen: str | None
    last_seen: str | None
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """One image of a gallery that answers a query.

    rank: from 1; score: cosine similarity in [-1, 1]; id: stable and opaque; source: the image's name below `root`, the folder
    it was indexed from; captured_at: ISO 8601 without zone, in UTC; attributes: every further column given at indexing;
    thumbnail: JPEG bytes; chance: the calibrated estimate that it is right, where there is one; group: what it stands for.
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
        """Where the picture was when it was indexed; None for one that never was a file."""
        return Path(self.root) / self.source if self.root else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
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
