"""From a query embedding and a filter to hits: a snapshot of the table, exact scores, rows read back."""

import threading
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar, final

import numpy as np
from jaxtyping import Float, Float64

from tbps.errors import GalleryError, QueryError
from tbps.gallery.search.nearest import Found, Nearest
from tbps.gallery.store.filter_reading import written
from tbps.gallery.store.hit import Hit
from tbps.gallery.store.table import Table
from tbps.gallery.store.version import Snapshot

_VERSIONS_KEPT = 4
_TRIES = 20
_T = TypeVar("_T")


@final
class Engine:
    """Searches a table; safe to call from several threads and while another process adds.

    Every search sees one committed version whole. The embeddings stay in memory; what a new version adds is read when it is
    searched first. While the table only grows, its last few versions stay open for further pages of their results.

    hidden: ids of rows that are being erased, which are not found.
    """

    def __init__(self, table: Table, nearest: Nearest | None = None, hidden: Collection[str] = ()) -> None:
        self._table, self._hidden = table, hidden
        self._nearest = nearest or Nearest()
        self._snapshots: dict[int, Snapshot] = {}
        self._refreshing = threading.Lock()

    def search(self, embedding: Float[np.ndarray, " D"], k: int, where: str | None, thumbnails: bool = True) -> list[Hit]:
        """The `k` images most similar to a vector among those that pass the filter, best first.

        Raises QueryError on a vector of another size or without direction, k < 1, or a filter that cannot be read.
        """
        if k < 1:
            raise QueryError(f"k is {k}; ask for at least one hit")
        return self.on_newest(lambda snapshot: self._answer(snapshot, embedding, k, where, thumbnails))

    def on_newest(self, answer: Callable[[Snapshot], _T]) -> _T:
        """The answer of the newest version; asked again of a newer one where writers removed the files of the one being read.

        Between two looks a version may come and go: with somebody who compacts without a pause, twenty tries are enough.
        """
        snapshot = self.newest()
        for _ in range(_TRIES - 1):
            try:
                return answer(snapshot)
            except (GalleryError, QueryError):
                if (newer := self.newest()) is snapshot:
                    raise
                snapshot = newer
        return answer(snapshot)

    def top(self, snapshot: Snapshot, vector: Float64[np.ndarray, " D"], k: int, passing: np.ndarray | None) -> Found:
        """The `k` best rows of a snapshot for a unit vector, by position; `passing`: ascending positions to stay within."""
        return self._nearest.top(snapshot.rows, vector, k, passing)

    def newest(self) -> Snapshot:
        """The newest version."""
        with self._refreshing:
            version = self._table.version
            if version not in self._snapshots:
                snapshot = self._table.snapshot(next(reversed(self._snapshots.values()), None), self._hidden)
                # Rows that moved were rewritten or forgotten: the files of older versions go, and they must not be shown again.
                alike = {v: held for v, held in self._snapshots.items() if held.rows.room is snapshot.rows.room}
                if len(alike) < len(self._snapshots):
                    self._nearest.forget()
                self._snapshots = dict([*alike.items(), (snapshot.version, snapshot)][-_VERSIONS_KEPT:])
                version = snapshot.version
            return self._snapshots[version]

    def at(self, version: int, within: Sequence[str] | None = None) -> Snapshot:
        """A version that was searched lately, or the newest. Raises QueryError when it is gone.

        within: the cameras of who asks, whose versions have numbers of their own (see `Scope.version`).
        """
        newest = self.newest()
        if within is None:
            if (found := self._snapshots.get(version)) is not None:
                return found
            raise QueryError(f"version {version} of the gallery is no longer kept, the newest is {newest.version}; search again")
        for snapshot in reversed(self._snapshots.values()):
            if snapshot.scope(within).version == version:
                return snapshot
        raise QueryError(f"version {version} of the gallery is no longer kept; search again")

    def prepare(self) -> bool:
        """Reads the newest version into memory and builds what an approximate search needs; whether searches are approximate."""
        self.on_newest(Snapshot.hold)
        return self._nearest.prepare(self.newest().rows)

    def _answer(self, snapshot: Snapshot, embedding: np.ndarray, k: int, where: str | None, thumbnails: bool) -> list[Hit]:
        query = unit(embedding, snapshot.rows.embeddings.shape[1])
        rows = None if where is None else snapshot.passing(written(where))
        found = self.top(snapshot, query, k, rows)
        return snapshot.hits(found.positions, found.scores, thumbnails=thumbnails)


def unit(embedding: Float[np.ndarray, " D"], dim: int) -> Float64[np.ndarray, " D"]:
    """A vector of length 1. Raises QueryError on one of another size or without direction."""
    query = np.asarray(embedding, np.float64)
    if query.shape != (dim,):
        raise QueryError(f"the query embedding has shape {query.shape}; this gallery needs ({dim},)")
    length = float(np.linalg.norm(query))
    if not np.isfinite(length) or length == 0:
        raise QueryError("the query embedding is zero or not finite and has no direction")
    return query / length
