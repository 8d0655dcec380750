"""Exact nearest neighbours by one matrix product in memory; `cells` is the approximate way for larger galleries."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Integer, Shaped

_BLOCK = 65_536
_GATHERED = 256  # rows gathered at a time: a block that stays in the cache is read three times faster than all rows at once


@dataclass(frozen=True, slots=True)
class ExactIndex:
    """ids: ASCII bytes; embeddings: unit rows."""

    ids: Shaped[np.ndarray, " N"]
    embeddings: Float32[np.ndarray, "N D"]

    def top(
        self, query: Float64[np.ndarray, " D"], k: int, rows: Integer[np.ndarray, " M"] | None = None
    ) -> tuple[Integer[np.ndarray, " hits"], Float64[np.ndarray, " hits"]]:
        """Positions and cosines of the `k` best of all rows, or of the positions in `rows`; equal scores go by id.

        query: a unit vector. The float32 product only picks candidates; those are scored again in float64, row by
        row, so that a score depends neither on the position of a row nor on the filter, and the order is that of float64.
        """
        scores = self._rough(query.astype(np.float32), rows)
        if len(scores) > k:
            # Twice the bound n * u on the rounding of a float32 dot product of unit vectors of n components.
            margin = 2 * len(query) * np.finfo(np.float32).eps
            threshold = np.partition(scores, len(scores) - k)[len(scores) - k] - margin
            chosen = np.flatnonzero(scores >= threshold)
        else:
            chosen = np.arange(len(scores))
        return self.ranked(query, chosen if rows is None else rows[chosen], k)

    def ranked(
        self, query: Float64[np.ndarray, " D"], candidates: Integer[np.ndarray, " M"], k: int
    ) -> tuple[Integer[np.ndarray, " hits"], Float64[np.ndarray, " hits"]]:
        """The `k` best of few candidates, each scored in float64."""
        exact = self.cosines(query, candidates)
        order = np.lexsort((self.ids[candidates], -exact))[:k]
        return candidates[order], exact[order]

    def cosines(self, query: Float64[np.ndarray, " D"], rows: Integer[np.ndarray, " M"]) -> Float64[np.ndarray, " M"]:
        """The float64 cosines of the positions in `rows`."""
        blocks = [np.zeros(0)]
        for start in range(0, len(rows), _BLOCK):
            block = self.embeddings[rows[start : start + _BLOCK]].astype(np.float64)
            blocks.append((block * query).sum(axis=1))
        return np.clip(np.concatenate(blocks), -1.0, 1.0)

    def _rough(self, query: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        if rows is None:
            return np.asarray(self.embeddings @ query)
        if 2 * len(rows) < len(self.embeddings):  # gathering few rows is cheaper than scoring all
            return gathered_products(self.embeddings, rows, query)
        return np.asarray((self.embeddings @ query)[rows])


def gathered_products(
    matrix: Float32[np.ndarray, "N D"], rows: Integer[np.ndarray, " M"], query: Float32[np.ndarray, " D"]
) -> Float32[np.ndarray, " M"]:
    """`matrix[rows] @ query` without a copy of all those rows."""
    products = np.empty(len(rows), np.float32)
    block = np.empty((_GATHERED, matrix.shape[1]), np.float32)
    for start in range(0, len(rows), _GATHERED):
        some = rows[start : start + _GATHERED]
        np.take(matrix, some, axis=0, out=block[: len(some)], mode="clip")  # "raise" would buffer the result
        np.dot(block[: len(some)], query, out=products[start : start + len(some)])
    return products
