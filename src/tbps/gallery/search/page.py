"""What a search answers; `as_dict` of each is what JSON can carry, without the thumbnails."""

from dataclasses import asdict, dataclass
from typing import Any

from tbps.gallery.search.query import Query
from tbps.gallery.store.hit import Hit


@dataclass(frozen=True, slots=True)
class Line:
    """Of the `hits` best answers about the share `share` is expected to be right; 0 hits: not even the best is so likely,
    and `share` is the best's.
    """

    hits: int
    share: float


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
