"""Approximate nearest neighbours for galleries above `nearest.EXACT_ROWS`, in memory and in NumPy alone.

Every embedding has a head: its coordinates along the directions in which the gallery's embeddings are largest (the leading
eigenvectors of their second moment). Heads lie in cells, the nearest of some centres found by k-means. A query goes through the
cells in the order of their centres' products with its own head until it has met so many rows that pass the filter, takes the
best of those by heads, and the caller scores these again exactly with the whole embeddings.

What is bounded is the number of rows met, not that of cells: the time does not depend on the filter, and the fewer rows pass, the
larger is the share of them that is met. Nothing of this is written to disk.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Integer

from tbps.gallery.store.rows import gathered_products
from tbps.seeding import generator

HEAD = 128
MET, MET_FILTERED = 160_000, 45_000  # rows met by a query; those that pass a filter are gathered, which costs more a row
_SAMPLE = 50_000
_ROUNDS = 8
_MOST_CELLS = 4096
_BLOCK = 16_384


@dataclass(frozen=True, slots=True)
class Within:
    """Rows that pass a filter. slots: ascending places in the order of the cells; starts: where each cell begins among them."""

    slots: Integer[np.ndarray, " M"]
    starts: Integer[np.ndarray, " bounds"]


@dataclass(frozen=True, slots=True)
class Cells:
    """The first N rows of a gallery by cells.

    basis: columns are the directions of the heads; heads: in the order of the cells; order: the position of each of those rows;
    starts: where each cell begins, and N.
    """

    basis: Float32[np.ndarray, "D H"]
    centres: Float32[np.ndarray, "C H"]
    heads: Float32[np.ndarray, "N H"]
    order: Integer[np.ndarray, " N"]
    starts: Integer[np.ndarray, " bounds"]

    @classmethod
    def build(cls, embeddings: Float32[np.ndarray, "N D"]) -> "Cells":
        """Cells of all rows: half a minute for a million of 512 dimensions on two cores."""
        rng = generator(0, "cells", len(embeddings))
        sample = embeddings[np.sort(rng.choice(len(embeddings), min(_SAMPLE, len(embeddings)), replace=False))]
        _, vectors = np.linalg.eigh(sample.T @ sample)  # ascending
        basis = np.ascontiguousarray(vectors[:, ::-1][:, :HEAD], np.float32)
        count = min(round(2 * np.sqrt(len(embeddings))), _MOST_CELLS, len(sample))
        centres = _centres(sample @ basis, count, rng)
        return _sorted_by_cell(basis, centres, *_heads(embeddings, basis, centres))

    def extended(self, embeddings: Float32[np.ndarray, "N D"]) -> "Cells":
        """Cells of all rows, of which the first are those of this; the centres stay."""
        heads, cells = _heads(embeddings[len(self.order) :], self.basis, self.centres)
        old_heads, old_cells = np.empty_like(self.heads), np.empty(len(self.order), cells.dtype)
        old_heads[self.order] = self.heads
        old_cells[self.order] = np.repeat(np.arange(len(self.centres)), np.diff(self.starts))
        return _sorted_by_cell(self.basis, self.centres, np.concatenate([old_heads, heads]), np.concatenate([old_cells, cells]))

    def within(self, passing: Integer[np.ndarray, " M"]) -> "Within":
        """The rows at some ascending positions, by cells."""
        mask = np.zeros(len(self.order), np.bool_)
        mask[passing] = True
        slots = np.flatnonzero(mask[self.order])
        return Within(slots, np.searchsorted(slots, self.starts))

    def candidates(
        self, query: Float64[np.ndarray, " D"], count: int, within: "Within | None" = None
    ) -> Integer[np.ndarray, " hits"]:
        """Positions of the `count` best rows by their heads among those met."""
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
    """k-means (Lloyd); a centre that loses all its rows begins again at a random one."""
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
