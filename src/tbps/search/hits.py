"""What a search answers; `as_dict` of each is what JSON can carry, without the thumbnails."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tbps.preprocess.metadata import JSON
from tbps.search.query import Query


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
class Line:
    """Of the `hits` best answers about the share `share` is expected to be right; 0 hits: not even the best is so likely,
    and `share` is the best's.
    """

    hits: int
    share: float


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


@dataclass(frozen=True, slots=True)
class Page:
    """A part of an answer, in order.

    total: how many images, or groups, pass the filter; version: the gallery's, which `next` asks again; next: the query of the next
    page, None after the last; line: None where no estimate is made; notices: what the user should know.
    approximate: a better image may have been missed (see `nearest`).
    """

    hits: tuple[Hit, ...]
    total: int
    version: int
    next: Query | None
    line: Line | None
    approximate: bool
    notices: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "hits": [hit.as_dict() for hit in self.hits],
            "total": self.total,
            "version": self.version,
            "next": None if self.next is None else self.next.model_dump(mode="json"),
            "line": None if self.line is None else asdict(self.line),
            "approximate": self.approximate,
            "notices": list(self.notices),
        }
