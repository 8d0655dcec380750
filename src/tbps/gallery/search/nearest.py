"""Which way a gallery is searched: exactly, or approximately through cells with exact scores."""

import threading
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64, Integer

from tbps.gallery.search.cells import Cells, Within
from tbps.gallery.store.index import ExactIndex
from tbps.gallery.store.rows import Rows
from tbps.seeding import generator

EXACT_ROWS = 200_000
SELECTIVE_ROWS = 20_000  # a filter that lets no more through is answered exactly
DEEPEST = 100  # more hits than this are searched exactly
_RESCORED = 500
_FILTERS_KEPT = 16
_TRIED, _TRIED_DEPTH, _LEAST_RECALL = 32, 10, 0.95


@dataclass(frozen=True, slots=True)
class Found:
    """Positions and cosines, best first. `approximate`: a better row may have been missed; the scores are exact all the same."""

    positions: Integer[np.ndarray, " hits"]
    scores: Float64[np.ndarray, " hits"]
    approximate: bool


@final
class Nearest:
    """Searches the rows of a table as it grows; safe from several threads.

    Up to `exact_rows`, with a selective filter, and for many hits: exactly. Above: through cells, built by a thread of its own from
    the second search on (the first may be the only one) while searches go on exactly. Rows that came after are searched exactly,
    and join the cells when they are more than `SELECTIVE_ROWS`. Cells that miss too many of the neighbours of the gallery's own
    rows, as with vectors that lie in no clusters, are not used.
    """

    def __init__(self, exact_rows: int = EXACT_ROWS, selective_rows: int = SELECTIVE_ROWS) -> None:
        self._exact_rows, self._selective_rows = exact_rows, selective_rows
        self._lock = threading.Lock()
        self._cells: Cells | None = None
        self._covered: Rows | None = None  # the rows of `_cells`, or of those that were not good enough
        self._filters: dict[int, tuple[np.ndarray, Cells, Within]] = {}
        self._asked = 0
        self._building = False

    def top(self, rows: Rows, query: Float64[np.ndarray, " D"], k: int, passing: np.ndarray | None = None) -> Found:
        """The `k` best rows for a unit vector, among the ascending positions in `passing` if given; equal scores go by id."""
        most = rows.count if passing is None else len(passing)
        if rows.count <= self._exact_rows or most <= self._selective_rows or k > DEEPEST:
            return Found(*rows.index.top(query, k, passing), approximate=False)
        cells = self._ready(rows)
        if cells is None:
            return Found(*rows.index.top(query, k, passing), approximate=False)
        covered = len(cells.order)
        candidates = cells.candidates(query, _RESCORED, None if passing is None else self._within(cells, passing))
        tail = ExactIndex(rows.ids[covered:], rows.embeddings[covered:])
        behind = None if passing is None else passing[np.searchsorted(passing, covered) :] - covered
        newer = tail.top(query, k, behind)[0] + covered
        return Found(*rows.index.ranked(query, np.concatenate([candidates, newer]), k), approximate=True)

    def prepare(self, rows: Rows) -> bool:
        """Builds now what a search of these rows would have built; whether they are searched through cells."""
        if rows.count > self._exact_rows and self._uncovered(rows) > self._selective_rows:
            self._build(rows)
        return rows.count > self._exact_rows and self._cells is not None and self._covers(rows)

    def forget(self) -> None:
        """Lets go of rows that are no longer those of the table."""
        with self._lock:
            self._cells, self._covered, self._filters = None, None, {}

    def _within(self, cells: Cells, passing: np.ndarray) -> Within:
        """The rows of a filter by cells; remembered for the last few arrays, since a snapshot gives the same one each time."""
        known = self._filters.get(id(passing))
        if known is not None and known[0] is passing and known[1] is cells:
            return known[2]
        within = cells.within(passing[: np.searchsorted(passing, len(cells.order))])
        self._filters = dict([*self._filters.items(), (id(passing), (passing, cells, within))][-_FILTERS_KEPT:])
        return within

    def _ready(self, rows: Rows) -> Cells | None:
        """The cells that can answer for these rows, if there are any. Starts to build what is missing."""
        with self._lock:
            cells = self._cells if self._covers(rows) else None
            self._asked += 1
            if self._uncovered(rows) > self._selective_rows and self._asked > 1 and not self._building:
                self._building = True
                threading.Thread(target=self._build, args=(rows,), name="tbps-cells", daemon=True).start()
            return cells

    def _uncovered(self, rows: Rows) -> int:
        """How many rows are not in the cells; none of a version that is older than they are."""
        covered = self._covered
        return rows.count - (covered.count if covered is not None and covered.room is rows.room else 0)

    def _covers(self, rows: Rows) -> bool:
        """Whether the rows of the cells are the first of these."""
        covered = self._covered
        return covered is not None and covered.room is rows.room and covered.count <= rows.count

    def _build(self, rows: Rows) -> None:
        try:
            grown = self._cells if self._covers(rows) else None
            if grown is not None and rows.count < 2 * len(grown.order):
                cells = grown.extended(rows.embeddings)
            else:
                cells = Cells.build(rows.embeddings)
            good = _recall(cells, rows.index) >= _LEAST_RECALL
            with self._lock:
                self._cells, self._covered = cells if good else None, rows
        finally:
            self._building = False


def _recall(cells: Cells, index: ExactIndex) -> float:
    """The share of the ten best of some of the gallery's own rows that are among the candidates."""
    found = 0
    for row in generator(0, "recall", len(index.ids)).choice(len(index.ids), _TRIED):
        query = index.embeddings[row].astype(np.float64)
        best = index.top(query, _TRIED_DEPTH)[0]
        found += len(np.intersect1d(best, cells.candidates(query, _RESCORED)))
    return found / (_TRIED * _TRIED_DEPTH)
