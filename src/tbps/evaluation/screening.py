"""Exact counts from a float32 matrix product, which takes half the time of a float64 product.

Scores are s = x . y with rows of integer multiples of 1 / GRID (see `metrics`). The float32 product f of the same rows, rounded to
float32, differs from s by at most e. With u = 2^-24 and D dimensions, the relative error of rounding the rows is 2u + u^2, and that
of summing, in any order, with or without fused operations, is D u / (1 - D u); each is multiplied by sum |x_i y_i| <= |x| |y|
(Higham, Accuracy and Stability of Numerical Algorithms, sections 3.1 and 3.5). So an image scores higher than a relevant one if its
f is more than 2e higher, and lower if its f is more than 2e lower. Only the images in between are scored exactly, about one in a
thousand at 512 dimensions.
"""

from dataclasses import dataclass
from queue import SimpleQueue
from typing import final

import numpy as np
from numpy.typing import NDArray

from tbps.evaluation import counting
from tbps.evaluation.counting import PART, Floats, Higher, Integers, Marks, Relevant, among_relevant, higher, own_scores

GRID = 2.0**26
"""Steps per unit of an embedding's coordinate; (2^26)^2 = 2^52 fits into the 53 bits of float64."""
FEW = 16
"""Up to this mean number of relevant images per query, screening is faster than the whole product in float64."""
DOUBTFUL = 1 / 32
"""If more than this share of a part's scores is in doubt, the whole part is computed in float64."""
_ROUNDING = 2.0**-24

Singles = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Counted:
    """Exact scores (b, R) of a part's relevant images, in any order, and how many gallery images score at least as high."""

    own: Floats
    at_least: Integers


@final
class Screen:
    """Rank the relevant images of up to `block` queries at a time in a gallery.

    gallery: (G, D) integer multiples of 1 / GRID. Up to `workers` threads may rank at once; each has a buffer for its scores.
    """

    def __init__(self, gallery: Floats, block: int, workers: int = 1) -> None:
        self._exact = gallery
        self._rounded = to_float32(gallery)
        self._slack = np.float32(2 * error_bound(gallery.shape[1]))
        self._buffers: SimpleQueue[Singles] = SimpleQueue()
        for _ in range(workers):
            self._buffers.put(np.empty((block, len(gallery)), dtype=np.float32))

    def ranked(self, queries: Floats, columns: Integers, count: Integers) -> tuple[Relevant, Higher]:
        """Compute the scores of the relevant images of b queries (b, D), and how many images score at least as high.

        columns: (b, R) gallery columns of the relevant images, padded with -1 after the (b, 1) `count` real ones.
        """
        parts = [slice(start, start + PART) for start in range(0, len(queries), PART)]
        if count.mean() > FEW:
            found = [self._whole(queries[part], columns[part], count[part]) for part in parts]
        else:
            buffer = self._buffers.get()
            try:
                rows = np.matmul(to_float32(queries), self._rounded.T, out=buffer[: len(queries)])
                found = [
                    self._screened(rows[part], queries[part], columns[part])
                    or self._whole(queries[part], columns[part], count[part])
                    for part in parts
                ]
            finally:
                self._buffers.put(buffer)
        own, at_least = np.concatenate([part.own for part in found]), np.concatenate([part.at_least for part in found])
        order = np.argsort(own, axis=1)
        relevant = Relevant(np.take_along_axis(own, order, axis=1), count)
        return relevant, Higher(np.take_along_axis(at_least, order, axis=1), among_relevant(relevant, or_equal=True))

    def _screened(self, rows: Singles, queries: Floats, columns: Integers) -> _Counted | None:
        """Count by screening; None if a query has too many relevant images or too many scores are in doubt."""
        real = columns >= 0
        most = int(real.sum(axis=1).max())
        if most > counting.FEW:
            return None
        near = own_scores(rows, columns)
        top, bottom = near + self._slack, near - self._slack
        at_least = np.zeros(columns.shape, dtype=np.int64)
        above, doubtful = Marks(*rows.shape), np.zeros(rows.shape, dtype=np.bool_)
        within = np.empty(rows.shape, dtype=np.bool_)
        for k in range(most):
            np.greater(rows, top[:, k : k + 1], out=above.here)
            np.greater_equal(rows, bottom[:, k : k + 1], out=within)
            at_least[:, k] = above.counts()
            doubtful |= np.not_equal(within, above.here, out=within)
        places = np.flatnonzero(doubtful)
        if len(places) > DOUBTFUL * rows.size:
            return None
        query, image = np.divmod(places, rows.shape[1])
        scores = self._scores(queries, query, image)
        at = np.searchsorted(places, columns + rows.shape[1] * np.arange(len(rows))[:, None])
        own = np.where(real, scores[np.where(real, at, 0)], np.inf)
        values = rows.reshape(-1)[places]
        for k in range(most):
            counts = (scores >= own[query, k]) & (values <= top[query, k])
            at_least[:, k] += np.bincount(query[counts], minlength=len(rows))
        return _Counted(own, at_least)

    def _scores(self, queries: Floats, query: Integers, image: Integers) -> Floats:
        """Exact scores (N,) of N pairs, which are sorted by query."""
        scores, ends = np.empty(len(query)), np.searchsorted(query, np.arange(len(queries)), side="right")
        for row, start, end in zip(queries, [0, *ends[:-1]], ends, strict=True):
            np.dot(self._exact.take(image[start:end], axis=0), row, out=scores[start:end])
        return scores

    def _whole(self, queries: Floats, columns: Integers, count: Integers) -> _Counted:
        """Count from the whole product in float64."""
        rows = queries @ self._exact.T
        own = np.sort(own_scores(rows, columns), axis=1)
        return _Counted(own, higher(rows, Relevant(own, count), or_equal=True).gallery)


def to_float32(rows: Floats) -> Singles:
    rounded: Singles = np.multiply(rows, 1 / GRID, out=np.empty(rows.shape, dtype=np.float32), casting="same_kind")
    return rounded


def error_bound(dimensions: int) -> float:
    """Compute the bound e. It includes the rounding of f + 2e in float32 and holds for rows of length up to 1 + D / GRID."""
    summing = dimensions * _ROUNDING
    return (summing / (1 - summing) + 4 * _ROUNDING) * (1 + dimensions / GRID) ** 2
