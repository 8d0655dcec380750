"""How many images of the gallery score higher than each relevant one of a query: what ranks are made of, and no order is needed."""

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
"""Relevant images of a query up to which counting by comparison is cheaper than by bisection."""
PART = 128
"""Queries counted together: their scores stay near the processor's cache, and threads seldom wait for the interpreter's lock."""
_WORDS = 255  # that can be added up before a byte of one overflows
_ALONE = Lock()  # the limit of BLAS holds for the process: two at once would not put back what was


@dataclass(frozen=True, slots=True)
class Relevant:
    """Scores of the relevant images of b queries, (b, R): ascending, padded with +inf behind the (b, 1) `count` real ones."""

    scores: Floats
    count: Integers

    @property
    def real(self) -> Truths:
        """(b, R): what is not padding."""
        return np.arange(self.scores.shape[1]) < self.count


@dataclass(frozen=True, slots=True)
class Higher:
    """For each relevant image, (b, R): how many images of the gallery, and of the relevant ones, score higher."""

    gallery: Integers
    relevant: Integers


class Marks:
    """Room for the truth values `here`, (b, G), of b queries and G images, and quick counts of those that are true."""

    def __init__(self, queries: int, gallery: int) -> None:
        self._groups = -(-gallery // (8 * _WORDS))
        self._whole: Truths = np.zeros((queries, self._groups * 8 * _WORDS), dtype=np.bool_)
        self.here = self._whole[:, :gallery]

    def counts(self) -> Integers:
        """(b,): how many are true. Eight are added at a time, each in its byte of a 64-bit word."""
        words = self._whole.view(np.uint64).reshape(len(self._whole), self._groups, _WORDS).sum(axis=2)
        counts: Integers = words.view(np.uint8).sum(axis=1, dtype=np.int64)
        return counts


def own_scores(rows: NDArray[Any], columns: Integers) -> NDArray[Any]:
    """(b, R) scores of the relevant images from those of the whole gallery, (b, G); +inf where the column is -1, the padding."""
    own: NDArray[Any] = np.where(
        columns < 0, np.array(np.inf, rows.dtype), np.take_along_axis(rows, np.maximum(columns, 0), axis=1)
    )
    return own


def higher(scores: Floats, relevant: Relevant, *, or_equal: bool) -> Higher:
    """Counts the (b, G) scores above each relevant one (or at least as high)."""
    counts, few = np.zeros(relevant.scores.shape, dtype=np.int64), relevant.count[:, 0] <= FEW
    counts[few, :FEW] = _by_comparing(scores if few.all() else scores[few], relevant.scores[few, :FEW], or_equal)
    if not few.all():
        counts[~few] = _by_bisecting(scores[~few], relevant.scores[~few], or_equal)
    return Higher(counts, among_relevant(relevant, or_equal))


def on_every_core(work: Callable[[slice], Outcome], queries: int, together: int) -> list[Outcome]:
    """The work on `together` queries and the next ones, in order, by a thread a core; BLAS starts none of its own meanwhile."""
    shares = [slice(start, min(start + together, queries)) for start in range(0, queries, together)]
    with _ALONE, _blas().limit(limits=1, user_api="blas"), ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(work, shares))


@cache
def _blas() -> ThreadpoolController:
    """Handle on the BLAS libraries of this process; finding them takes a millisecond, so it is done once."""
    return ThreadpoolController()


def among_relevant(relevant: Relevant, or_equal: bool) -> Integers:
    """The same count among the relevant ones, which are sorted: those behind the first (or the last) of equal scores."""
    own, place = relevant.scores, np.arange(relevant.scores.shape[1])
    if or_equal:
        begins = np.concatenate([np.ones((len(own), 1), dtype=np.bool_), own[:, 1:] != own[:, :-1]], axis=1)
        return relevant.count - np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    ends = np.concatenate([own[:, 1:] != own[:, :-1], np.ones((len(own), 1), dtype=np.bool_)], axis=1)
    last = np.minimum.accumulate(np.where(ends, place, len(place))[:, ::-1], axis=1)[:, ::-1]
    return relevant.count - 1 - last


def _by_comparing(scores: Floats, own: Floats, or_equal: bool) -> Integers:
    """One pass over the gallery for each relevant image."""
    counts, marks = np.zeros(own.shape, dtype=np.int64), Marks(*scores.shape)
    for k in range(own.shape[1]):
        (np.greater_equal if or_equal else np.greater)(scores, own[:, k : k + 1], out=marks.here)
        counts[:, k] = marks.counts()
    return counts


def _by_bisecting(scores: Floats, own: Floats, or_equal: bool) -> Integers:
    """Bisect every score among the relevant ones of its query, make a histogram of the places, sum it from the top."""
    rows = torch.from_numpy(scores)
    below = torch.searchsorted(torch.from_numpy(np.ascontiguousarray(own)), rows, right=or_equal)  # relevant images under each
    histogram = torch.zeros(len(rows), own.shape[1] + 1, dtype=torch.int64)
    histogram.scatter_add_(1, below, torch.ones(1, 1, dtype=torch.int64).expand_as(below))
    counts: Integers = histogram.numpy()[:, :0:-1].cumsum(axis=1)[:, ::-1]
    return counts
