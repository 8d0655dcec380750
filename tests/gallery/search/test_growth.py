"""In-memory versions of a table that grows, shrinks or is replaced, and the recall that `check` reports."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tbps.errors import QueryError
from tbps.gallery.gallery import Gallery
from tbps.gallery.search import cells as cells_module
from tbps.gallery.search.check import check_recall, descriptions
from tbps.gallery.search.compose import compose
from tbps.gallery.search.find import find
from tbps.gallery.search.nearest import Nearest
from tbps.gallery.search.query import Query
from tbps.gallery.search.versions import Versions
from tbps.gallery.store.hit import Hit
from tbps.gallery.store.table import Table
from tbps.gallery.store.version import Version
from tests.support.colour_encoder import ColourEncoder, write_pictures

DIM = 24


def _rows(first: int, count: int, seed: int = 0) -> tuple[list[dict[str, object]], np.ndarray]:
    rng = np.random.default_rng(seed + first)
    names = [f"{seed:04x}{number:020x}" for number in range(first, first + count)]
    fixed = {"root": "", "attributes": "{}", "model": "m"}
    rows = [
        {"id": name, "source": name, "content_hash": name, "thumbnail": name.encode(), "camera": f"c{int(name, 16) % 4}", **fixed}
        for name in names
    ]
    centres = np.random.default_rng(9).standard_normal((20, DIM)) + 0.5
    vectors = centres[rng.integers(20, size=count)] + 0.3 * rng.standard_normal((count, DIM))
    return rows, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    table = Table.create(tmp_path, DIM)
    table.append(*_rows(0, 300))
    return table


def _search(versions: Versions, vector: np.ndarray, k: int, where: str | None, thumbnails: bool = True) -> list[Hit]:
    query = Query(k=k, where=where)
    return list(find(versions.newest(), None, query, compose(query, [vector], ColourEncoder(), {}), thumbnails=thumbnails).hits)


def _same(found: Version, fresh: Version) -> bool:
    return all(np.array_equal(getattr(found.rows, name), getattr(fresh.rows, name)) for name in ("row_ids", "ids", "embeddings"))


def test_only_new_rows_are_read_when_a_table_has_grown(table: Table) -> None:
    versions = [table.open_version()]
    for step in range(5):
        table.append(*_rows(300 + 40 * step, 40))
        versions.append(table.open_version(versions[-1]))
    for number, version in enumerate(versions):
        assert version.rows.room is versions[0].rows.room
        assert version.rows.count == 300 + 40 * number
    assert _same(versions[-1], table.open_version())


def test_after_rows_are_deleted_older_versions_are_dropped(table: Table) -> None:
    versions = Versions(table)
    before = versions.newest()
    query = before.rows.embeddings[7].astype(float)
    gone = _search(versions, query, 1, None)[0].id
    table._handle.delete(f"id = '{gone}'")
    assert gone not in {hit.id for hit in _search(versions, query, 300, None)}
    assert versions.newest().rows.count == 299 and versions.newest().rows.room is not before.rows.room
    with pytest.raises(QueryError, match="no longer kept"):
        versions.at(before.number)
    assert _same(versions.newest(), table.open_version())


def test_cells_are_dropped_when_rows_are_deleted(table: Table) -> None:
    versions = Versions(table, Nearest(exact_rows=100, selective_rows=10))
    assert versions.prepare()
    query = versions.newest().rows.embeddings[7].astype(float)
    gone = _search(versions, query, 1, None)[0].id
    table._handle.delete(f"id = '{gone}'")
    assert gone not in {hit.id for hit in _search(versions, query, 50, None)}
    table._handle.delete("true")
    assert _search(versions, query, 50, None) == []


def test_a_version_with_as_many_added_as_deleted_rows_is_read_correctly(table: Table) -> None:
    before = table.open_version()
    table._handle.delete("camera = 'c1'")
    table.append(*_rows(300, 75))
    after = table.open_version(before)
    assert after.rows.count == 300 and _same(after, table.open_version())


def test_rewritten_rows_are_read_again(table: Table) -> None:
    before = table.open_version()
    table.append(*_rows(300, 200))
    table.tidy()
    assert _same(table.open_version(before), table.open_version())


def test_a_new_table_with_the_same_number_of_rows_is_read_completely(table: Table, tmp_path: Path) -> None:
    before = table.open_version()
    shutil.rmtree(tmp_path / "images.lance")
    again = Table.create(tmp_path, DIM)
    again.append(*_rows(0, 300, seed=5))
    after = again.open_version(before)
    assert _same(after, again.open_version()) and not np.array_equal(after.rows.embeddings, before.rows.embeddings)


def test_hits_read_from_memory_equal_those_read_from_disk(table: Table) -> None:
    """The table grows in small steps, loses rows and is rewritten, while row details are kept in memory."""
    prepared = Versions(table)
    prepared.prepare()
    steps: list[Callable[[], object]] = [partial(table.append, *_rows(300 + 3 * n, 3)) for n in range(70)]
    steps += [lambda: table._handle.delete("camera = 'c1'"), table.compact, lambda: table.append(*_rows(600, 5))]
    for step in steps:
        step()
        query = _rows(0, 1, seed=len(table))[1][0].astype(float)
        hits = _search(prepared, query, 600, None)
        assert hits == _search(Versions(table), query, 600, None) and len(hits) == len(table)
        assert prepared.newest()._details is not None


@pytest.mark.parametrize("prepared", [False, True])
def test_hits_without_thumbnails(table: Table, monkeypatch: pytest.MonkeyPatch, prepared: bool) -> None:
    versions, query = Versions(table), _rows(0, 1, seed=7)[1][0].astype(float)
    whole = _search(versions, query, 20, "camera = 'c1'")
    assert all(hit.thumbnail for hit in whole)
    if prepared:
        versions.prepare()
        monkeypatch.setattr(type(versions.newest()), "_taken", None)  # nothing is read from disk
    assert _search(versions, query, 20, "camera = 'c1'", thumbnails=False) == [replace(hit, thumbnail=b"") for hit in whole]


def test_check_reports_recall_against_exact_search(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ColourEncoder()
    for step in range(5):
        table.append(*_rows(300 + 400 * step, 400))
    exact = check_recall(Versions(table), model, descriptions(20), 10)
    assert (exact.images, exact.queries, exact.recall, exact.least, exact.approximate) == (2300, 20, 1.0, 1.0, False)
    monkeypatch.setattr(cells_module, "MET", 200)
    monkeypatch.setattr(cells_module, "MET_FILTERED", 30)
    exactly, versions = Versions(table), Versions(table, Nearest(exact_rows=2000, selective_rows=20))
    for where in (None, "camera = 'c2'"):
        report = check_recall(versions, model, descriptions(50), 10, where)
        assert report.approximate and report.least <= report.recall
        shares = []
        for embedding in model.encode_texts(descriptions(50)).astype(float):
            found = {hit.id for hit in _search(versions, embedding, 10, where)}
            truth = {hit.id for hit in _search(exactly, embedding, 10, where)}
            shares.append(len(found & truth) / 10)
        assert report.recall == pytest.approx(np.mean(shares)) and report.least == min(shares)
        assert 0.5 < report.recall < 1


def test_check_descriptions_are_distinct_and_reproducible() -> None:
    assert len(set(descriptions(1920))) == 1920 and descriptions(5) == descriptions(200)[:5]


def test_check_of_a_gallery(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 6)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(tmp_path / "photos")
    assert not gallery.prepare()
    assert gallery.check(["a man"], k=3).recall == 1
    assert gallery.check(["a man"], k=3, where="source > 'x'").recall == 1
    with pytest.raises(QueryError, match="no description to check with"):
        gallery.check([])
