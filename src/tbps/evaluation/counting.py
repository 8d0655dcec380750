"""Count the gallery images that score higher than each relevant image of a query; ranks follow from these counts."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from tbps.machine import available_cores

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Truths = NDArray[np.bool_]
Outcome = TypeVar("Outcome")

FEW = 128
"""Up to this number of relevant images per query, counting by comparison is faster than counting by bisection."""
PART = 128
"""Queries counted together: their scores fit into the processor's cache, and threads rarely wait for the interpreter lock."""
_WORDS = 255  # 64-bit words that can be added before one of their bytes overflows
_ALONE = Lock()  # the thread limit of BLAS is global; two users at once would not restore it


@dataclass(frozen=True, slots=True)
class Relevant:
    """Scores (b, R) of the relevant images of b queries: ascending, padded with +inf after the (b, 1) `count` real ones."""

    scores: Floats
    count: Integers

    @property
    def real(self) -> Truths:
        """(b, R): true for entries that are not padding."""
        return np.arange(self.scores.shape[1]) < self.count


@dataclass(frozen=True, slots=True)
class Higher:
    """Numbers (b, R) of gallery images, and of relevant images, that score higher than each relevant image."""

    gallery: Integers
    relevant: Integers


class Marks:
    """Boolean matrix `here` (b, G) for b queries and G images, with fast counts of its true values."""

    def __init__(self, queries: int, gallery: int) -> None:
        self._groups = -(-gallery // (8 * _WORDS))
        self._whole: Truths = np.zeros((queries, self._groups * 8 * _WORDS), dtype=np.bool_)
        self.here = self._whole[:, :gallery]

    def counts(self) -> Integers:
        """Number of true values per query, (b,). Adds eight values at a time, as the bytes of 64-bit words."""
        words = self._whole.view(np.uint64).reshape(len(self._whole), self._groups, _WORDS).sum(axis=2)
        counts: Integers = words.view(np.uint8).sum(axis=1, dtype=np.int64)
        return counts


def own_scores(rows: NDArray[Any], columns: Integers) -> NDArray[Any]:
    """Scores (b, R) of the relevant images, from scores (b, G) of the gallery; +inf where the column is -1 (padding)."""
    own: NDArray[Any] = np.where(
        columns < 0, np.array(np.inf, rows.dtype), np.take_along_axis(rows, np.maximum(columns, 0), axis=1)
    )
    return own


def higher(scores: Floats, relevant: Relevant, *, or_equal: bool) -> Higher:
    """Count the scores (b, G) above each relevant one, or with `or_equal` those at least as high."""
    counts, few = np.zeros(relevant.scores.shape, dtype=np.int64), relevant.count[:, 0] <= FEW
    counts[few, :FEW] = _by_comparing(scores if few.all() else scores[few], relevant.scores[few, :FEW], or_equal)
    if not few.all():
        counts[~few] = _by_bisecting(scores[~few], relevant.scores[~few], or_equal)
    return Higher(counts, among_relevant(relevant, or_equal))


def on_every_core(work: Callable[[slice], Outcome], queries: int, together: int) -> list[Outcome]:
    """Run `work` on slices of `together` queries with one thread per core, and BLAS single-threaded; results in order."""
    shares = [slice(start, min(start + together, queries)) for start in range(0, queries, together)]
    with _ALONE, _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(work, shares))


@cache
def _blas() -> ThreadpoolController:
    """Handle on the BLAS libraries of this process; finding them takes a millisecond, so it is done once."""
    return ThreadpoolController()


def among_relevant(relevant: Relevant, or_equal: bool) -> Integers:
    """Count as `higher` does, but among the relevant images only, from their sorted scores."""
    own, place = relevant.scores, np.arange(relevant.scores.shape[1])
    if or_equal:
        begins = np.concatenate([np.ones((len(own), 1), dtype=np.bool_), own[:, 1:] != own[:, :-1]], axis=1)
        return relevant.count - np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    ends = np.concatenate([own[:, 1:] != own[:, :-1], np.ones((len(own), 1), dtype=np.bool_)], axis=1)
    last = np.minimum.accumulate(np.where(ends, place, len(place))[:, ::-1], axis=1)[:, ::-1]
    return relevant.count - 1 - last


def _by_comparing(scores: Floats, own: Floats, or_equal: bool) -> Integers:
    """Count with one pass over the gallery for each relevant image."""
    counts, marks = np.zeros(own.shape, dtype=np.int64), Marks(*scores.shape)
    for k in range(own.shape[1]):
        (np.greater_equal if or_equal else np.greater)(scores, own[:, k : k + 1], out=marks.here)
        counts[:, k] = marks.counts()
    return counts


def _by_bisecting(scores: Floats, own: Floats, or_equal: bool) -> Integers:
    """Count by bisection: find the position of every score among the query's relevant ones and sum the histogram from the top."""
    rows = torch.from_numpy(scores)
    below = torch.searchsorted(torch.from_numpy(np.ascontiguousarray(own)), rows, right=or_equal)  # relevant images under each
    histogram = torch.zeros(len(rows), own.shape[1] + 1, dtype=torch.int64)
    histogram.scatter_add_(1, below, torch.ones(1, 1, dtype=torch.int64).expand_as(below))
    counts: Integers = histogram.numpy()[:, :0:-1].cumsum(axis=1)[:, ::-1]
    return counts
