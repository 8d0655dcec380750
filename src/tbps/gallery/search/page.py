"""The answer to a query: one page of hits, as Python values and as JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from tbps.gallery.search.query import Query
from tbps.gallery.store.hit import Hit


@dataclass(frozen=True, slots=True)
class Cutoff:
    """Number of first hits of which about the share `share` is expected to be right.

    hits is 0 if even the best hit is less likely than the query's `share`; `share` is then the chance of the best hit.
    """

    hits: int
    share: float


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the hits of a query, best first.

    total: number of images, or groups, that pass the filters; version: the version of the gallery that was searched; next: the
    query of the next page in the same version, None after the last page; line: the cutoff, None without a calibration;
    approximate: whether a better image may have been missed (see `nearest`); notices: messages for the user.
    """

    hits: tuple[Hit, ...]
    total: int
    version: int
    next: Query | None
    line: Cutoff | None
    approximate: bool
    notices: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The page as JSON values, without the thumbnails."""
        return {
            "hits": [hit.as_dict() for hit in self.hits],
            "total": self.total,
            "version": self.version,
            "next": None if self.next is None else self.next.model_dump(mode="json"),
            "line": None if self.line is None else asdict(self.line),
            "approximate": self.approximate,
            "notices": list(self.notices),
        }
