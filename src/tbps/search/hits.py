"""What a search answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tbps.preprocess.metadata import JSON


@dataclass(frozen=True, slots=True)
class Hit:
    """One image of a gallery that answers a query.

    rank: from 1; score: cosine similarity in [-1, 1]; id: stable and opaque; source: the image's name below `root`, the folder
    it was indexed from; captured_at: ISO 8601 without zone, in UTC; attributes: every further column given at indexing;
    thumbnail: JPEG bytes.
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

    @property
    def path(self) -> Path | None:
        """Where the picture was when it was indexed; None for one that never was a file."""
        return Path(self.root) / self.source if self.root else None
