"""Exact search against a full float64 sort."""

import numpy as np
import pytest

from tbps.gallery.store.version import ExactIndex


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _index(count: int, dim: int, seed: int = 0) -> ExactIndex:
    rng = np.random.default_rng(seed)
    ids = np.array([f"{n:024x}" for n in rng.permutation(count)], "S24")
    return ExactIndex(ids, _unit(rng.standard_normal((count, dim))).astype(np.float32))


def _oracle(index: ExactIndex, query: np.ndarray, k: int, rows: list[int]) -> list[int]:
    scored = [(-float(np.dot(index.embeddings[r].astype(np.float64), query)), index.ids[r], r) for r in rows]
    return [row for _, _, row in sorted(scored)[:k]]


@pytest.mark.parametrize("k", [1, 7, 300, 999])
@pytest.mark.parametrize("share", [None, 0.02, 0.6])
def test_top_equals_a_full_sort(k: int, share: float | None) -> None:
    index = _index(300, 48)
    rng = np.random.default_rng(k)
    query = _unit(rng.standard_normal(48))
    rows = None if share is None else np.flatnonzero(rng.random(300) < share)
    positions, scores = index.top(query, k, rows)
    assert positions.tolist() == _oracle(index, query, k, list(range(300)) if rows is None else rows.tolist())
    assert np.allclose(scores, index.embeddings[positions].astype(float) @ query, atol=1e-12)


def test_equal_rows_are_ordered_by_id() -> None:
    index = _index(200, 16)
    twins = [3, 50, 51, 120, 199]
    index.embeddings[twins] = index.embeddings[7]
    query = index.embeddings[7].astype(np.float64)
    positions, scores = index.top(query, 4)
    expected = sorted([*twins, 7], key=lambda row: index.ids[row])[:4]
    assert positions.tolist() == expected
    assert len(set(scores.tolist())) == 1


def test_rows_that_float32_cannot_distinguish_are_ranked_by_their_float64_cosine() -> None:
    index = _index(1, 256)
    base = index.embeddings[0].astype(np.float64)
    rng = np.random.default_rng(1)
    rows = np.stack([base + 1e-7 * rng.standard_normal(256) for _ in range(500)]).astype(np.float32)
    close = ExactIndex(np.array([f"{n:024x}" for n in range(500)], "S24"), rows)
    query = _unit(base + 0.1 * rng.standard_normal(256))
    assert close.top(query, 5)[0].tolist() == _oracle(close, query, 5, list(range(500)))


def test_a_score_does_not_depend_on_the_filter() -> None:
    index = _index(1000, 33)
    query = _unit(np.random.default_rng(5).standard_normal(33))
    everywhere = dict(zip(*(part.tolist() for part in index.top(query, 1000)), strict=True))
    rows = np.arange(1, 1000, 37)
    for row, score in zip(*(part.tolist() for part in index.top(query, 1000, rows)), strict=True):
        assert everywhere[row] == score


def test_no_row_passes() -> None:
    index = _index(10, 4)
    positions, scores = index.top(np.array([1.0, 0, 0, 0]), 3, np.zeros(0, np.int64))
    assert len(positions) == len(scores) == 0
