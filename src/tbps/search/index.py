"""Exact nearest neighbours by one matrix product in memory; an approximate index for larger galleries will stand beside it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Integer, Shaped

_BLOCK = 65_536


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
        candidates = chosen if rows is None else rows[chosen]
        exact = self._exact(query, candidates)
        order = np.lexsort((self.ids[candidates], -exact))[:k]
        return candidates[order], exact[order]

    def _rough(self, query: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        if rows is None:
            return np.asarray(self.embeddings @ query)
        if 4 * len(rows) < len(self.embeddings):  # gathering few rows is cheaper than scoring all
            return np.asarray(self.embeddings[rows] @ query)
        return np.asarray((self.embeddings @ query)[rows])

    def _exact(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        blocks = [np.zeros(0)]
        for start in range(0, len(rows), _BLOCK):
            block = self.embeddings[rows[start : start + _BLOCK]].astype(np.float64)
            blocks.append((block * query).sum(axis=1))
        return np.clip(np.concatenate(blocks), -1.0, 1.0)
