"""Approximate search of large galleries: when cells are used, built, extended and dropped."""

import threading
from typing import final

import numpy as np
from jaxtyping import Float64, Integer

from tbps.gallery.search.cells import Cells, Within
from tbps.gallery.store.rows import Rows
from tbps.gallery.store.version import ExactIndex
from tbps.seeding import generator

EXACT_ROWS = 200_000
SELECTIVE_ROWS = 20_000  # if a filter leaves no more rows than this, all of them are compared
DEEPEST = 100  # searches for more hits than this are exact
_RESCORED = 500
_FILTERS_KEPT = 16
_TRIED, _TRIED_DEPTH, _LEAST_RECALL = 32, 10, 0.95


@final
class Nearest:
    """Approximate nearest-neighbour index of a growing table; thread-safe.

    Search is exact up to `exact_rows`, with a selective filter, and for many hits; otherwise cells are used. The second search
    starts a thread that builds them, as a process may search only once; until they are ready, search remains exact. Rows that were
    added later are searched exactly, and are added to the cells when they number more than `selective_rows`. Cells are not used if
    they miss too many of the neighbours of the gallery's own rows, as happens with vectors that form no clusters.
    """

    def __init__(self, exact_rows: int = EXACT_ROWS, selective_rows: int = SELECTIVE_ROWS) -> None:
        self._exact_rows, self._selective_rows = exact_rows, selective_rows
        self._lock = threading.Lock()
        self._cells: Cells | None = None
        self._covered: Rows | None = None  # the rows of `_cells`, or of cells that were discarded for low recall
        self._filters: dict[int, tuple[np.ndarray, Cells, Within]] = {}
        self._asked = 0
        self._building = False

    def shortlist(
        self, rows: Rows, query: Float64[np.ndarray, " D"], k: int, passing: np.ndarray | None = None
    ) -> Integer[np.ndarray, " candidates"] | None:
        """Positions of candidates for the `k` nearest rows to a unit vector, among those in `passing` (ascending) if given.

        None if all rows should be compared exactly instead.
        """
        most = rows.count if passing is None else len(passing)
        if rows.count <= self._exact_rows or most <= self._selective_rows or k > DEEPEST:
            return None
        if (cells := self._ready(rows)) is None:
            return None
        covered = len(cells.order)
        candidates = cells.candidates(query, _RESCORED, None if passing is None else self._within(cells, passing))
        tail = ExactIndex(rows.ids[covered:], rows.embeddings[covered:])
        behind = None if passing is None else passing[np.searchsorted(passing, covered) :] - covered
        return np.concatenate([candidates, tail.top(query, k, behind)[0] + covered])

    def prepare(self, rows: Rows) -> bool:
        """Builds the cells now if a search of these rows would start to build them; returns whether search is approximate."""
        if rows.count > self._exact_rows and self._uncovered(rows) > self._selective_rows:
            self._build(rows)
        return rows.count > self._exact_rows and self._cells is not None and self._covers(rows)

    def forget(self) -> None:
        """Drops the cells; called when rows of the table were removed or rewritten."""
        with self._lock:
            self._cells, self._covered, self._filters = None, None, {}

    def _within(self, cells: Cells, passing: np.ndarray) -> Within:
        """The rows of a filter grouped by cell; cached by array, since a version returns the same array for the same filter."""
        known = self._filters.get(id(passing))
        if known is not None and known[0] is passing and known[1] is cells:
            return known[2]
        within = cells.within(passing[: np.searchsorted(passing, len(cells.order))])
        self._filters = dict([*self._filters.items(), (id(passing), (passing, cells, within))][-_FILTERS_KEPT:])
        return within

    def _ready(self, rows: Rows) -> Cells | None:
        """The cells that cover these rows, None if there are none; starts a thread that builds or extends them."""
        with self._lock:
            cells = self._cells if self._covers(rows) else None
            self._asked += 1
            if self._uncovered(rows) > self._selective_rows and self._asked > 1 and not self._building:
                self._building = True
                threading.Thread(target=self._build, args=(rows,), name="tbps-cells", daemon=True).start()
            return cells

    def _uncovered(self, rows: Rows) -> int:
        """Number of rows that are not in the cells; negative if this version is older than the cells."""
        covered = self._covered
        return rows.count - (covered.count if covered is not None and covered.room is rows.room else 0)

    def _covers(self, rows: Rows) -> bool:
        """Whether the cells were built from the first of these rows."""
        covered = self._covered
        return covered is not None and covered.room is rows.room and covered.count <= rows.count

    def _build(self, rows: Rows) -> None:
        try:
            grown = self._cells if self._covers(rows) else None
            if grown is not None and rows.count < 2 * len(grown.order):
                cells = grown.extended(rows.embeddings)
            else:
                cells = Cells.build(rows.embeddings)
            good = _recall(cells, ExactIndex(rows.ids, rows.embeddings)) >= _LEAST_RECALL
            with self._lock:
                self._cells, self._covered = cells if good else None, rows
        finally:
            self._building = False


def _recall(cells: Cells, index: ExactIndex) -> float:
    """Recall@10 of the candidates, with some of the gallery's own rows as queries."""
    found = 0
    for row in generator(0, "recall", len(index.ids)).choice(len(index.ids), _TRIED):
        query = index.embeddings[row].astype(np.float64)
        best = index.top(query, _TRIED_DEPTH)[0]
        found += len(np.intersect1d(best, cells.candidates(query, _RESCORED)))
    return found / (_TRIED * _TRIED_DEPTH)
