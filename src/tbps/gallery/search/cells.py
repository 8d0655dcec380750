"""Approximate nearest neighbours for galleries above `nearest.EXACT_ROWS`: an inverted file (IVF) in memory, with NumPy.

Every embedding has a head: its projection onto the leading eigenvectors of the second moment of the gallery's embeddings. Heads are
assigned to cells by k-means. A query visits the cells in order of the dot product of its head with their centres, until it has
visited a given number of rows that pass the filter. Of these rows, those with the largest dot product of heads are the candidates;
the caller scores them exactly with the whole embeddings.

The number of visited rows is bounded, not the number of cells. So the time does not depend on the filter, and a selective filter
increases the share of its rows that is visited. Cells are not written to disk.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Integer

from tbps.gallery.store.rows import gathered_products
from tbps.seeding import generator

HEAD = 128
MET, MET_FILTERED = 160_000, 45_000  # rows that a query visits; with a filter rows are gathered, which costs more per row
_SAMPLE = 50_000
_ROUNDS = 8
_MOST_CELLS = 4096
_BLOCK = 16_384


@dataclass(frozen=True, slots=True)
class Within:
    """Rows that pass a filter, by cell. slots: ascending indices into `Cells.order`; starts: where each cell begins in `slots`."""

    slots: Integer[np.ndarray, " M"]
    starts: Integer[np.ndarray, " bounds"]


@dataclass(frozen=True, slots=True)
class Cells:
    """The first N rows of a gallery, sorted by cell.

    basis: its columns are the eigenvectors; heads: sorted by cell; order: position of each of these rows in the gallery; starts:
    where each cell begins, followed by N.
    """

    basis: Float32[np.ndarray, "D H"]
    centres: Float32[np.ndarray, "C H"]
    heads: Float32[np.ndarray, "N H"]
    order: Integer[np.ndarray, " N"]
    starts: Integer[np.ndarray, " bounds"]

    @classmethod
    def build(cls, embeddings: Float32[np.ndarray, "N D"]) -> "Cells":
        """Builds cells of all rows: half a minute for a million rows of 512 dimensions on two cores."""
        rng = generator(0, "cells", len(embeddings))
        sample = embeddings[np.sort(rng.choice(len(embeddings), min(_SAMPLE, len(embeddings)), replace=False))]
        _, vectors = np.linalg.eigh(sample.T @ sample)  # ascending
        basis = np.ascontiguousarray(vectors[:, ::-1][:, :HEAD], np.float32)
        count = min(round(2 * np.sqrt(len(embeddings))), _MOST_CELLS, len(sample))
        centres = _centres(sample @ basis, count, rng)
        return _sorted_by_cell(basis, centres, *_heads(embeddings, basis, centres))

    def extended(self, embeddings: Float32[np.ndarray, "N D"]) -> "Cells":
        """Adds rows, keeping the centres. embeddings: those of all rows; the rows of this object come first."""
        heads, cells = _heads(embeddings[len(self.order) :], self.basis, self.centres)
        old_heads, old_cells = np.empty_like(self.heads), np.empty(len(self.order), cells.dtype)
        old_heads[self.order] = self.heads
        old_cells[self.order] = np.repeat(np.arange(len(self.centres)), np.diff(self.starts))
        return _sorted_by_cell(self.basis, self.centres, np.concatenate([old_heads, heads]), np.concatenate([old_cells, cells]))

    def within(self, passing: Integer[np.ndarray, " M"]) -> "Within":
        """Groups the rows at the given ascending positions by cell."""
        mask = np.zeros(len(self.order), np.bool_)
        mask[passing] = True
        slots = np.flatnonzero(mask[self.order])
        return Within(slots, np.searchsorted(slots, self.starts))

    def candidates(
        self, query: Float64[np.ndarray, " D"], count: int, within: "Within | None" = None
    ) -> Integer[np.ndarray, " hits"]:
        """Positions of the `count` best of the visited rows, by their heads."""
        head = query.astype(np.float32) @ self.basis
        slots = None if within is None else within.slots
        starts, most = (self.starts, MET) if within is None else (within.starts, MET_FILTERED)
        nearest = np.argsort(-(self.centres @ head), kind="stable")
        enough = int(np.searchsorted(np.cumsum(np.diff(starts)[nearest]), most)) + 1
        runs = [(starts[cell], starts[cell + 1]) for cell in np.sort(nearest[:enough]).tolist()]
        if slots is None:
            met = np.concatenate([np.arange(start, stop) for start, stop in runs])
            products = np.concatenate([self.heads[start:stop] @ head for start, stop in runs])
        else:
            met = np.concatenate([slots[start:stop] for start, stop in runs])
            products = gathered_products(self.heads, met, head)
        if len(met) > count:
            met = met[np.argpartition(products, len(met) - count)[len(met) - count :]]
        return np.asarray(self.order[met])


def _centres(heads: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """k-means by Lloyd's algorithm; a centre without rows is moved to a random row."""
    centres = heads[rng.choice(len(heads), count, replace=False)]
    for _ in range(_ROUNDS):
        cells = _cell_of(heads, centres)
        order = np.argsort(cells, kind="stable")
        found, begins, sizes = np.unique(cells[order], return_index=True, return_counts=True)
        centres = heads[rng.choice(len(heads), count, replace=False)]
        centres[found] = np.add.reduceat(heads[order], begins, axis=0) / sizes[:, None]
    return centres


def _cell_of(heads: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The nearest centre of each row: the largest of x.c - c.c / 2."""
    cells = np.empty(len(heads), np.int32)
    half = (centres * centres).sum(axis=1) / 2
    for start in range(0, len(heads), _BLOCK):
        cells[start : start + _BLOCK] = (heads[start : start + _BLOCK] @ centres.T - half).argmax(axis=1)
    return cells


def _heads(embeddings: np.ndarray, basis: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    heads = np.empty((len(embeddings), basis.shape[1]), np.float32)
    for start in range(0, len(embeddings), _BLOCK):
        heads[start : start + _BLOCK] = embeddings[start : start + _BLOCK] @ basis
    return heads, _cell_of(heads, centres)


def _sorted_by_cell(basis: np.ndarray, centres: np.ndarray, heads: np.ndarray, cells: np.ndarray) -> Cells:
    order = np.argsort(cells, kind="stable").astype(np.int32)
    starts = np.searchsorted(cells[order], np.arange(len(centres) + 1))
    return Cells(basis, centres, heads[order], order, starts)
