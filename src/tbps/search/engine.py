"""From a query embedding and a filter to hits: the newest snapshot of the table, exact scores, rows read back."""

import threading
from typing import final

import numpy as np
from jaxtyping import Float, Float64

from tbps.errors import GalleryError, QueryError
from tbps.search.hits import Hit
from tbps.search.table import Snapshot, Table


@final
class Engine:
    """Searches a table; safe to call from several threads and while another process adds.

    Every search sees one committed version whole. The embeddings stay in memory and are read again when the version changes.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._snapshot: Snapshot | None = None
        self._refreshing = threading.Lock()

    def search(self, embedding: Float[np.ndarray, " D"], k: int, where: str | None) -> list[Hit]:
        """The `k` images most similar to a vector among those that pass the filter, best first.

        Raises QueryError on a vector of another size or without direction, k < 1, or a filter that cannot be read.
        """
        if k < 1:
            raise QueryError(f"k is {k}; ask for at least one hit")
        try:
            return self._answer(self._current(), embedding, k, where)
        except (GalleryError, QueryError):
            # A writer may have removed the files of this version between our look and our read: one more try, if so.
            before = self._snapshot
            if before is None or self._current() is before:
                raise
            return self._answer(self._current(), embedding, k, where)

    def _answer(self, snapshot: Snapshot, embedding: np.ndarray, k: int, where: str | None) -> list[Hit]:
        query = _unit(embedding, snapshot.index.embeddings.shape[1])
        rows = None if where is None else snapshot.passing(where)
        return snapshot.hits(*snapshot.index.top(query, k, rows))

    def _current(self) -> Snapshot:
        with self._refreshing:
            if self._snapshot is None or self._snapshot.version != self._table.version:
                self._snapshot = self._table.snapshot()
            return self._snapshot


def _unit(embedding: np.ndarray, dim: int) -> Float64[np.ndarray, " dim"]:
    query = np.asarray(embedding, np.float64)
    if query.shape != (dim,):
        raise QueryError(f"the query embedding has shape {query.shape}; this gallery needs ({dim},)")
    length = float(np.linalg.norm(query))
    if not np.isfinite(length) or length == 0:
        raise QueryError("the query embedding is zero or not finite and has no direction")
    return query / length
