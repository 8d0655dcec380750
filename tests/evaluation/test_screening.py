"""Counts from a float32 product against integer products in int64, which are exact in any order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbps.evaluation import retrieval_metrics, screening
from tbps.evaluation.screening import GRID, Screen, error_bound, to_float32

NEAR = (0.0, 1e-9, 3e-8, 1e-7, 1e-6, 3e-5, 1e-3)
"""Distances between images of one query: equal, closer than float32 resolves, and far apart."""


def _grid(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return np.rint(rows / np.linalg.norm(rows, axis=1, keepdims=True) * GRID)


def _expected(queries: np.ndarray, gallery: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending scores of the relevant images, and numbers of images at least as high; padded with +inf and 0."""
    scores = queries.astype(np.int64) @ gallery.astype(np.int64).T
    own, at_least = np.full(columns.shape, np.inf), np.zeros(columns.shape, np.int64)
    for query, row in enumerate(columns):
        relevant = np.sort(scores[query, row[row >= 0]])
        own[query, : len(relevant)] = relevant
        at_least[query, : len(relevant)] = [(scores[query] >= score).sum() for score in relevant]
    return own, at_least


def _found(queries: np.ndarray, gallery: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count = (columns >= 0).sum(axis=1, keepdims=True)
    relevant, counts = Screen(gallery, len(queries)).ranked(queries, columns, count)
    assert np.array_equal(relevant.count, count)
    real = relevant.real
    return relevant.scores, np.where(real, counts.gallery, 0)


def _case(seed: int, dimensions: int, images: int, near: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, a gallery in which every image has two others `near` to it, and some relevant images of each query."""
    rng = np.random.default_rng(seed)
    gallery = np.repeat(rng.standard_normal((images // 3 + 1, dimensions)), 3, axis=0)[:images]
    gallery = gallery[rng.permutation(images)] + near * rng.standard_normal((images, dimensions))
    queries = gallery[rng.integers(images, size=9)] + rng.standard_normal((9, dimensions))
    columns = np.full((9, 6), -1)
    for row in columns:
        count = rng.integers(1, 7)
        row[:count] = rng.permutation(images)[:count]
    return _grid(queries), _grid(gallery), columns


@pytest.mark.parametrize("dimensions", [2, 64, 512])
@pytest.mark.parametrize("near", NEAR)
def test_counts_equal_those_of_integer_products(dimensions: int, near: float) -> None:
    case = _case(7, dimensions, 700, near)
    for found, expected in zip(_found(*case), _expected(*case), strict=True):
        assert np.array_equal(found, expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 3, 40]), st.integers(6, 60), st.sampled_from(NEAR))
def test_counts_on_small_galleries(seed: int, dimensions: int, images: int, near: float) -> None:
    case = _case(seed, dimensions, images, near)
    for found, expected in zip(_found(*case), _expected(*case), strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(("name", "value"), [("DOUBTFUL", 0.0), ("DOUBTFUL", 1.0), ("FEW", 0), ("FEW", 10**9)])
def test_every_method_of_counting_gives_the_same_counts(name: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    case = _case(3, 128, 900, 1e-6)
    expected = _expected(*case)
    monkeypatch.setattr(screening, name, value)
    for found, wanted in zip(_found(*case), expected, strict=True):
        assert np.array_equal(found, wanted)


def test_scores_in_doubt_are_few_and_scored_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []
    one_by_one = Screen._scores
    monkeypatch.setattr(
        Screen, "_scores", lambda self, q, query, image: scored.append(len(query)) or one_by_one(self, q, query, image)
    )
    monkeypatch.setattr(Screen, "_whole", None)
    case = _case(5, 512, 3000, 1.0)
    assert np.array_equal(_found(*case)[1], _expected(*case)[1])
    relevant = (case[2] >= 0).sum()
    assert relevant <= sum(scored) < 6 * relevant


def test_equal_scores_of_all_images() -> None:
    queries, gallery = _grid(np.ones((70, 8))), _grid(np.ones((500, 8)))
    columns = np.arange(70)[:, None]
    own, at_least = _found(queries, gallery, columns)
    assert (at_least == 500).all() and len(np.unique(own)) == 1


@pytest.mark.parametrize("dimensions", [1, 2, 16, 512, 4096])
@pytest.mark.parametrize("kind", ["normal", "positive", "one large"])
def test_errors_of_a_float32_product_are_within_the_bound(dimensions: int, kind: str) -> None:
    rng = np.random.default_rng(dimensions)
    rows = rng.standard_normal((2, 300, dimensions))
    if kind == "positive":  # sums of positive products grow without cancelling
        rows = abs(rows)
    if kind == "one large":
        rows[:, :, 0] = 30.0
    queries, gallery = _grid(rows[0]), _grid(rows[1])
    exact = (queries.astype(np.int64) @ gallery.astype(np.int64).T) / GRID**2
    for product in (to_float32(queries) @ to_float32(gallery).T, _one_by_one(to_float32(queries), to_float32(gallery))):
        errors = abs(product.astype(np.float64) - exact)
        assert errors.max() <= error_bound(dimensions)
    assert dimensions == 1 or errors.max() > 0


def _one_by_one(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The matrix product summed from left to right in float32, the least accurate order."""
    sums = np.zeros((len(queries), len(gallery)), np.float32)
    for column in range(queries.shape[1]):
        sums += queries[:, column, None] * gallery[None, :, column]
    return sums


def test_reports_do_not_depend_on_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    text, image = (rng.standard_normal((count, 32), dtype=np.float32) for count in (300, 400))
    text_ids, image_ids = np.arange(300) % 50, np.arange(400) % 50
    screened = retrieval_metrics(text, image, text_ids, image_ids)
    monkeypatch.setattr(screening, "FEW", 0)
    assert retrieval_metrics(text, image, text_ids, image_ids) == screened
