"""Approximate search against exact search; limits are lowered, so that a few thousand rows are enough."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from tbps.gallery.search import cells as cells_module
from tbps.gallery.search.cells import Cells
from tbps.gallery.search.nearest import DEEPEST, Nearest
from tbps.gallery.store.rows import Rows
from tbps.gallery.store.version import ExactIndex, Found

DIM = 40


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def _clustered(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((60, DIM))
    return _unit(centres[rng.integers(60, size=count)] + 0.4 * rng.standard_normal((count, DIM)) + 0.5)


def _rows(embeddings: np.ndarray) -> Rows:
    ids = np.array([f"{row:024x}" for row in range(len(embeddings))], "S24")
    return Rows.room_for(len(embeddings), DIM).extended(np.arange(len(embeddings), dtype=np.uint64), ids, embeddings)


def _more(rows: Rows, embeddings: np.ndarray) -> Rows:
    numbers = np.arange(rows.count, rows.count + len(embeddings))
    return rows.extended(numbers.astype(np.uint64), np.array([f"{row:024x}" for row in numbers], "S24"), embeddings)


def _queries(count: int) -> np.ndarray:
    """Unit vectors that are near rows but not equal to them, as embeddings of descriptions are."""
    rng = np.random.default_rng(5)
    rows = _clustered(count, seed=7) + 0.1 * rng.standard_normal((count, DIM))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def few_met(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limits a query to 600 visited rows, a tenth of 6,000."""
    monkeypatch.setattr(cells_module, "MET", 600)
    monkeypatch.setattr(cells_module, "MET_FILTERED", 300)
    yield


def _exact(rows: Rows) -> ExactIndex:
    return ExactIndex(rows.ids, rows.embeddings)


def _top(nearest: Nearest, rows: Rows, query: np.ndarray, k: int, passing: np.ndarray | None = None) -> Found:
    """Searches as `Version.top` does."""
    candidates = nearest.shortlist(rows, query, k, passing)
    if candidates is None:
        return Found(*_exact(rows).top(query, k, passing), approximate=False)
    return Found(*_exact(rows).ranked(query, candidates, k), approximate=True)


def _recall(nearest: Nearest, rows: Rows, passing: np.ndarray | None = None) -> float:
    shares = []
    for query in _queries(50):
        found = _top(nearest, rows, query, 10, passing)
        assert found.approximate
        exact, scores = _exact(rows).top(query, 10, passing)
        agree = np.intersect1d(found.positions, exact)
        shares.append(len(agree) / len(exact))
        assert dict(zip(found.positions.tolist(), found.scores.tolist(), strict=True)).items() >= {
            (int(at), float(score)) for at, score in zip(exact, scores, strict=True) if at in agree
        }  # the scores are the exact ones
    return float(np.mean(shares))


def test_every_row_is_in_the_cell_of_its_nearest_centre() -> None:
    embeddings = _clustered(3000)
    cells = Cells.build(embeddings)
    assert sorted(cells.order.tolist()) == list(range(3000))
    heads = embeddings.astype(float) @ cells.basis
    assert np.allclose(cells.heads, heads[cells.order], atol=1e-5)
    nearest = ((heads[:, None] - cells.centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    own = np.repeat(np.arange(len(cells.centres)), np.diff(cells.starts))
    assert (nearest[cells.order] == own).mean() > 0.999  # float32 may resolve a tie differently


def test_extended_cells_hold_all_rows() -> None:
    embeddings = _clustered(3000)
    whole = Cells.build(embeddings)
    for known in (1, 1500, 2999):
        part = Cells(whole.basis, whole.centres, *_first(whole, known))
        grown = part.extended(embeddings)
        assert np.array_equal(grown.order, whole.order) and np.array_equal(grown.starts, whole.starts)
        assert np.allclose(grown.heads, whole.heads, atol=1e-6)


def _first(cells: Cells, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    kept = cells.order < count
    return cells.heads[kept], cells.order[kept], np.concatenate([[0], np.cumsum(kept)])[cells.starts]


def test_recall_is_high_although_few_rows_are_visited(few_met: None) -> None:
    rows = _rows(_clustered(6000))
    nearest = Nearest(exact_rows=5000, selective_rows=100)
    assert nearest.prepare(rows)
    assert _recall(nearest, rows) > 0.9
    passing = np.flatnonzero(np.random.default_rng(0).random(6000) < 0.2)
    assert _recall(nearest, rows, passing) > 0.95


def test_hits_satisfy_the_filter(few_met: None) -> None:
    rows = _rows(_clustered(6000))
    nearest = Nearest(exact_rows=5000, selective_rows=100)
    nearest.prepare(rows)
    rng = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.9):
        passing = np.flatnonzero(rng.random(6000) < share)
        for query in _queries(10):
            found = _top(nearest, rows, query, 20, passing)
            assert found.approximate and len(found.positions) == 20 and np.isin(found.positions, passing).all()


@pytest.mark.parametrize(("passing", "k"), [(None, DEEPEST + 1), (np.arange(0, 6000, 70), 10)])
def test_deep_and_selective_searches_are_exact(passing: np.ndarray | None, k: int, few_met: None) -> None:
    rows = _rows(_clustered(6000))
    nearest = Nearest(exact_rows=5000, selective_rows=100)
    nearest.prepare(rows)
    for query in _queries(5):
        found = _top(nearest, rows, query, k, passing)
        assert not found.approximate
        assert np.array_equal(found.positions, _exact(rows).top(query, k, passing)[0])


def test_new_rows_are_found_at_once_and_join_the_cells_later(few_met: None) -> None:
    rows = _rows(_clustered(6000))
    nearest = Nearest(exact_rows=5000, selective_rows=100)
    nearest.prepare(rows)
    query = _queries(1)[0]
    grown = _more(rows, np.stack([query] * 3).astype(np.float32))
    found = _top(nearest, grown, query, 3, None)
    assert found.approximate and sorted(found.positions.tolist()) == [6000, 6001, 6002]
    only = np.array([5, 700, *range(1000, 3000), 6001])
    assert _top(nearest, grown, query, 1, only).positions.tolist() == [6001]
    assert not _top(nearest, rows, query, 3, None).positions.max() >= 6000  # the older version does not see them
    many = _more(grown, _clustered(500, seed=4))
    assert nearest.prepare(many) and len(_cells(nearest).order) == 6503
    assert _top(nearest, many, query, 3, None).positions.tolist() == found.positions.tolist()
    assert _recall(nearest, many) > 0.9


def _cells(nearest: Nearest) -> Cells:
    assert nearest._cells is not None
    return nearest._cells


def test_an_older_version_is_searched_exactly_and_does_not_change_the_cells(few_met: None) -> None:
    rows = _rows(_clustered(6000))
    nearest = Nearest(exact_rows=5000, selective_rows=100)
    nearest.prepare(_more(rows, _clustered(500, seed=4)))
    built = _cells(nearest)
    for _ in range(3):
        assert not _top(nearest, rows, _queries(1)[0], 10).approximate
    assert _cells(nearest) is built


def test_cells_are_built_in_the_background_from_the_second_search_on(few_met: None) -> None:
    rows = _rows(_clustered(6000))
    nearest = Nearest(exact_rows=5000, selective_rows=100)
    query = _queries(1)[0]
    found: list[Found] = [_top(nearest, rows, query, 10)]
    assert threading.active_count() == 1 or not [t for t in threading.enumerate() if t.name == "tbps-cells"]
    until = time.monotonic() + 300
    while not found[-1].approximate and time.monotonic() < until:
        found.append(_top(nearest, rows, query, 10))
        time.sleep(0.01)
    assert not found[0].approximate and not found[1].approximate and found[-1].approximate


def test_vectors_without_clusters_are_searched_exactly(few_met: None) -> None:
    rows = _rows(_unit(np.random.default_rng(0).standard_normal((6000, DIM))))
    nearest = Nearest(exact_rows=5000, selective_rows=100)
    assert not nearest.prepare(rows)
    query = _queries(1)[0]
    found = _top(nearest, rows, query, 10)
    assert not found.approximate and np.array_equal(found.positions, _exact(rows).top(query, 10)[0])


def test_versions_share_memory_until_it_is_full_or_taken() -> None:
    embeddings = _clustered(100)
    rows = _rows(embeddings)
    grown = _more(rows, _clustered(50, seed=1))
    assert grown.room is rows.room and rows.count == 100 and grown.count == 150
    other = _more(rows, _clustered(50, seed=2))  # the space after `rows` is in use by `grown`
    assert other.room is not rows.room
    assert np.array_equal(grown.embeddings[100:], _clustered(50, seed=1))
    assert np.array_equal(other.embeddings, np.concatenate([embeddings, _clustered(50, seed=2)]))
    vast = _more(grown, _clustered(6000, seed=3))
    assert vast.room is not rows.room and np.array_equal(vast.embeddings[:150], grown.embeddings)
    assert np.array_equal(vast.ids[:150], grown.ids) and len(vast.ids) == 6150
