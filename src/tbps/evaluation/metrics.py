"""Exact Rank-k, mAP and mINP of text-to-image retrieval, computed in blocks without sorting the gallery.

An image is relevant to a query if both have the same identity. With the n relevant images of a query at ranks r_1 < ... < r_n:

    Rank-k  1 if r_1 <= k, else 0
    AP      1/n sum_j j / r_j
    INP     n / r_n

The report holds the means over the queries in percent. Only the ranks of the relevant images are needed: the j-th best of them has
rank j + (number of irrelevant images that score at least as high), which can be counted without sorting.

**Ties count against the model**: an irrelevant image with the same score ranks before the relevant one, so a model that gives every
image the same score gains nothing by it. `ties="random"` gives the exact expectation over random orders of equal scores instead.

**Scores do not depend on the blocks.** A floating-point matrix product may round one pair differently in another block or column,
which would break ties by accident. `retrieval_metrics` rounds unit embeddings to multiples of 2^-26 (1.5e-8, finer than the
rounding of a float32 product) and multiplies them as integers in float64; `screening` gives the same counts faster. By
Cauchy-Schwarz every partial sum is at most about 2^52, where float64 is exact. So the score of a pair does not depend on the block,
the order of summation or the library, and equal embeddings always tie.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from tbps.errors import EvaluationError
from tbps.evaluation.counting import PART, Floats, Higher, Integers, Relevant, higher, on_every_core, own_scores
from tbps.evaluation.screening import GRID, Screen
from tbps.machine import available_cores

TextIdentities = Shaped[Tensor | np.ndarray, " Q"] | Sequence[int] | Sequence[str]
ImageIdentities = Shaped[Tensor | np.ndarray, " G"] | Sequence[int] | Sequence[str]
Scores = Callable[[int, int], NDArray[Any]]
"""scores(start, stop) -> (stop - start, G): scores of these queries against the whole gallery; higher is better."""

ROWS = 1024
"""Embeddings converted to float64 at a time, which keeps the copies small."""


@dataclass(frozen=True, slots=True)
class Report:
    """Mean metrics over the queries in percent, and the numbers of queries and gallery images. `ranks`: Rank-k by k."""

    r1: float
    r5: float
    r10: float
    map: float
    minp: float
    queries: int
    gallery: int
    ranks: Mapping[int, float] = field(default_factory=dict, hash=False)

    def as_dict(self) -> dict[str, float | int]:
        """Return a flat dictionary for JSON: r1, r5, r10 and every further r<k>, map, minp, queries, gallery."""
        ranks = {1: self.r1, 5: self.r5, 10: self.r10, **self.ranks}
        named: dict[str, float | int] = {f"r{k}": ranks[k] for k in sorted(ranks)}
        return named | {"map": self.map, "minp": self.minp, "queries": self.queries, "gallery": self.gallery}


def retrieval_metrics(
    text: Float[Tensor | np.ndarray, "Q D"],
    image: Float[Tensor | np.ndarray, "G D"],
    text_ids: TextIdentities,
    image_ids: ImageIdentities,
    ks: Sequence[int] = (1, 5, 10),
    block: int = 512,
) -> Report:
    """Compute the metrics of ranking the images for every text by cosine similarity; ties count against the model.

    text, image: embeddings, which are normalised inside. ks: the values of k in Rank-k. block: number of queries scored at the same
    time, divided among the cores (at least PART each); it bounds the memory (4 bytes per query and gallery image, plus copies of
    the embeddings) and does not change the result. Raises EvaluationError for embeddings that are empty, of wrong shape, zero or
    not finite, and for queries without a relevant image.
    """
    queries, gallery = _Rows.checked(text, "text"), _Rows.checked(image, "image")
    if queries.rows.shape[1] != gallery.rows.shape[1]:
        dimensions = f"{queries.rows.shape[1]} dimensions and image embeddings {gallery.rows.shape[1]}"
        raise EvaluationError(f"text embeddings have {dimensions}")
    for name, ids, rows in (("text", text_ids, len(queries.rows)), ("image", image_ids, len(gallery.rows))):
        if len(_array(ids)) != rows:
            raise EvaluationError(f"{rows} {name} embeddings but {len(_array(ids))} {name} identities")
    relevance, cutoffs = _relevance(text_ids, image_ids), _cutoffs(ks)
    cores, block = available_cores(), min(_checked_block(block), len(queries.rows))
    share = max(min(PART, block), -(-block // cores))
    screen = Screen(gallery.exact(slice(None)), share, cores)

    def outcome(part: slice) -> _Outcome:
        return _outcome_against(*screen.ranked(queries.exact(part), *relevance.columns(part)), cutoffs)

    return _report(on_every_core(outcome, len(queries.rows), share), relevance, cutoffs)


def metrics_from_scores(
    scores: Scores,
    text_ids: TextIdentities,
    image_ids: ImageIdentities,
    ks: Sequence[int] = (1, 5, 10),
    ties: Literal["against", "random"] = "against",
    block: int = 512,
) -> Report:
    """Compute the metrics of any scores, in blocks of queries.

    ties: "against" counts ties against the model; "random" gives the exact expectation of every metric over random orders of equal
    scores. Raises EvaluationError for scores of wrong shape or not finite, and for queries without a relevant image.
    """
    if ties not in ("against", "random"):
        raise EvaluationError(f'ties count "against" the model or at "random", not {ties!r}')
    relevance, cutoffs = _relevance(text_ids, image_ids), _cutoffs(ks)

    def checked(start: int, stop: int) -> Floats:
        rows = np.asarray(scores(start, stop), dtype=np.float64)
        if rows.shape != (stop - start, relevance.gallery):
            wanted = (stop - start, relevance.gallery)
            raise EvaluationError(f"scores({start}, {stop}) gave shape {rows.shape} instead of {wanted}")
        if not np.isfinite(rows).all():
            query = start + int((~np.isfinite(rows)).any(axis=1).argmax())
            raise EvaluationError(f"query {query} has a score that is not a finite number")
        return rows

    def outcome(rows: Floats, columns: Integers, count: Integers) -> _Outcome:
        relevant = Relevant(np.sort(own_scores(rows, columns), axis=1), count)
        at_least = higher(rows, relevant, or_equal=True)
        if ties == "against":
            return _outcome_against(relevant, at_least, cutoffs)
        return _expected_outcome(relevant, higher(rows, relevant, or_equal=False), at_least, cutoffs)

    def outcomes(start: int) -> list[_Outcome]:
        rows = checked(start, min(start + block, len(relevance.count)))
        columns, count = relevance.columns(slice(start, start + len(rows)))
        return on_every_core(lambda part: outcome(rows[part], columns[part], count[part]), len(rows), PART)

    starts = range(0, len(relevance.count), _checked_block(block))
    return _report([one for start in starts for one in outcomes(start)], relevance, cutoffs)


def chance(text_ids: TextIdentities, image_ids: ImageIdentities, ks: Sequence[int] = (1, 5, 10)) -> Report:
    """Compute the exact expected metrics of a random ranking.

    For n relevant images of G: Rank-k is 1 - C(G-n, k) / C(G, k) (hypergeometric), AP is c + (1 - c) H_G / G with
    c = (n - 1) / (G - 1) and H_G the harmonic number, INP is sum_x (n / x) C(x-1, n-1) / C(G, n) over the rank x of the last
    relevant image.
    """
    relevance, cutoffs = _relevance(text_ids, image_ids), _cutoffs(ks)
    counts, which = np.unique(relevance.count, return_inverse=True)  # queries with equally many relevant images share a row
    relevant = Relevant(np.where(np.arange(counts.max()) < counts[:, None], 0.0, np.inf), counts[:, None])
    everyone, none = np.full(relevant.scores.shape, relevance.gallery), np.zeros(relevant.scores.shape, dtype=np.int64)
    tied = np.broadcast_to(counts[:, None], everyone.shape)
    outcome = _expected_outcome(relevant, Higher(none, none), Higher(everyone, tied), cutoffs)
    return _report([_Outcome(outcome.hits[which], outcome.ap[which], outcome.inp[which])], relevance, cutoffs)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Embeddings (N, D) as given, and the lengths (N, 1) of their rows in float64."""

    rows: NDArray[Any]
    length: Floats

    @staticmethod
    def checked(embeddings: Tensor | np.ndarray, name: str) -> "_Rows":
        rows = _array(embeddings)
        if rows.ndim != 2 or rows.size == 0:
            raise EvaluationError(f"{name} embeddings are a non-empty (rows, dimensions) matrix, not of shape {rows.shape}")
        chunks = (rows[start : start + ROWS].astype(np.float64, order="C") for start in range(0, len(rows), ROWS))
        length = np.sqrt(np.concatenate([(chunk * chunk).sum(axis=1, keepdims=True) for chunk in chunks]))
        wrong = np.flatnonzero(~(np.isfinite(length) & (length > 0.0)))
        if len(wrong):
            raise EvaluationError(f"{len(wrong)} {name} embeddings are zero or not finite, the first is row {wrong[0]}")
        return _Rows(rows, length)

    def exact(self, part: slice) -> Floats:
        """Unit rows as integer multiples of 1 / GRID in float64; see the module docstring."""
        unit = self.rows[part].astype(np.float64, order="C")
        unit *= GRID / self.length[part]
        return np.rint(unit, out=unit)


@dataclass(frozen=True, slots=True)
class _Relevance:
    """Gallery columns with the identity of query q: `order[start[q] : start[q] + count[q]]`."""

    order: Integers
    start: Integers
    count: Integers
    gallery: int

    def columns(self, part: slice) -> tuple[Integers, Integers]:
        """Columns (b, R) of these queries' relevant images, padded with -1, and their numbers (b, 1)."""
        count = self.count[part, None]
        place = np.arange(count.max())
        return np.where(place < count, self.order[np.minimum(self.start[part, None] + place, self.gallery - 1)], -1), count


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Per query: probability of a relevant image within each cutoff (b, K), AP (b,) and INP (b,)."""

    hits: Floats
    ap: Floats
    inp: Floats


def _outcome_against(relevant: Relevant, at_least: Higher, cutoffs: Integers) -> _Outcome:
    """Compute metrics with all ties counted against the model. Column k is the j-th best relevant image, j = n - k."""
    n, real = relevant.count, relevant.real
    j = np.where(real, n - np.arange(real.shape[1]), 0)
    rank = np.where(real, j + at_least.gallery - at_least.relevant, 1)
    best = np.take_along_axis(rank, n - 1, axis=1)
    hits = (best <= cutoffs).astype(np.float64)
    return _Outcome(hits, _row_sums(j / rank) / n[:, 0], n[:, 0] / rank[:, 0])


def _expected_outcome(relevant: Relevant, higher: Higher, at_least: Higher, cutoffs: Integers) -> _Outcome:
    """Compute the expected metrics over random orders of equal scores.

    Consider a group of t images with equal scores, r of them relevant, ranked below A images of which B are relevant. The image at
    rank A + x is relevant with probability r / t. If it is, (x - 1)(r - 1) / (t - 1) of the x - 1 images of the group before it are
    relevant on average. So one relevant image of the group adds 1/t sum_{x=1..t} (B + 1 + (x - 1) c) / (A + x) to the sum of
    precisions, with c = (r - 1) / (t - 1). This equals c + (B + 1 - c (1 + A)) (H_{A+t} - H_A) / t with the harmonic numbers H.
    """
    n, real = relevant.count, relevant.real
    above, above_relevant = np.where(real, higher.gallery, 0), np.where(real, higher.relevant, 0)  # A, B
    tied = np.where(real, at_least.gallery - higher.gallery, 1)  # t
    tied_relevant = np.where(real, at_least.relevant - higher.relevant, 1)  # r
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, int((above + tied).max()) + 1))])
    c = (tied_relevant - 1) / np.maximum(tied - 1, 1)
    precision = c + (above_relevant + 1 - c * (1 + above)) * (harmonic[above + tied] - harmonic[above]) / tied
    ap = _row_sums(np.where(real, precision, 0.0)) / n[:, 0]

    last = zip(above[:, 0].tolist(), tied[:, 0].tolist(), tied_relevant[:, 0].tolist(), strict=True)
    inp = n[:, 0] * np.array([_inverse_last_rank(*group) for group in last])

    first = [np.take_along_axis(values, n - 1, axis=1) for values in (above, tied, tied_relevant)]
    return _Outcome(1.0 - _missed(first[0], first[1], first[2], cutoffs), ap, inp)


def _row_sums(padded: Floats) -> Floats:
    """Sum from left to right. NumPy's `sum` groups its terms by the width of the array, so padding would change the last bit."""
    last: Floats = padded.cumsum(axis=1)[:, -1]
    return last


def _missed(above: Integers, tied: Integers, right: Integers, cutoffs: Integers) -> Floats:
    """(b, K) probability that none of the `right` images is among the first m = k - above of the tied: C(t - r, m) / C(t, m)."""
    drawn = np.clip(cutoffs - above, 0, tied)  # m
    wrong = tied - right  # e
    missed = np.ones(drawn.shape)
    for i in range(int(drawn.max())):
        missed *= np.where(i < drawn, np.maximum(wrong - i, 0) / np.maximum(tied - i, 1), 1.0)
    return missed


@lru_cache(maxsize=65536)
def _inverse_last_rank(above: int, tied: int, right: int) -> float:
    """E[1 / (above + X)] for the last place X of `right` among `tied` images in random order: P(X = x) = C(x-1, r-1) / C(t, r)."""
    place = np.arange(tied, right - 1, -1)
    falling = (place[:-1] - right) / (place[:-1] - 1)  # P(X = x - 1) / P(X = x)
    chances = right / tied * np.concatenate([[1.0], np.cumprod(falling)])
    return float((chances / (above + place)).sum())


def _report(outcomes: Sequence[_Outcome], relevance: _Relevance, cutoffs: Integers) -> Report:
    hits, ap, inp = (np.concatenate([getattr(one, name) for one in outcomes]) for name in ("hits", "ap", "inp"))
    percent = dict(zip(cutoffs.tolist(), (100.0 * hits.mean(axis=0)).tolist(), strict=True))
    return Report(
        r1=percent[1],
        r5=percent[5],
        r10=percent[10],
        map=100.0 * float(ap.mean()),
        minp=100.0 * float(inp.mean()),
        queries=len(relevance.count),
        gallery=relevance.gallery,
        ranks=percent,
    )


def _checked_block(block: int) -> int:
    if block < 1:
        raise EvaluationError(f"block must be at least 1 query, not {block}")
    return block


def _cutoffs(ks: Sequence[int]) -> Integers:
    """The given cutoffs and 1, 5 and 10, ascending."""
    wrong = [k for k in ks if k < 1 or k != int(k)]
    if wrong:
        raise EvaluationError(f"Rank-k needs whole numbers k >= 1, not {wrong[0]}")
    return np.unique(np.array([*ks, 1, 5, 10], dtype=np.int64))


def _relevance(text_ids: TextIdentities, image_ids: ImageIdentities) -> _Relevance:
    texts, images = _identities(text_ids, "text"), _identities(image_ids, "image")
    if texts.dtype.kind != images.dtype.kind:
        raise EvaluationError(f"identities of texts are {texts.dtype} and of images {images.dtype}: give both one type")
    order = np.argsort(images, kind="stable")
    start = np.searchsorted(images[order], texts, side="left")
    count = np.searchsorted(images[order], texts, side="right") - start
    lost = np.flatnonzero(count == 0)
    if len(lost):
        first = f"the first is query {lost[0]}, identity {texts[lost[0]].item()!r}"
        raise EvaluationError(f"{len(lost)} of {len(texts)} queries have no relevant image in the gallery; {first}")
    return _Relevance(order, start, count, len(images))


def _identities(ids: TextIdentities | ImageIdentities, name: str) -> NDArray[Any]:
    array = _array(ids)
    if array.ndim != 1 or array.size == 0:
        raise EvaluationError(f"{name} identities are a non-empty list with one entry per row, not of shape {array.shape}")
    return array


def _array(values: Tensor | np.ndarray | Sequence[Any]) -> NDArray[Any]:
    """Convert values to a NumPy array; bfloat16, which NumPy lacks, becomes float32."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)
