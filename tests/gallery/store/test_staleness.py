"""Errors while reading distinguish versions that another process removed, damaged files, and faults in our code."""

import ast
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tbps.errors import GalleryError, QueryError, StaleVersionError
from tbps.gallery.gallery import Gallery
from tbps.gallery.lifecycle.compact import compact
from tbps.gallery.lifecycle.snapshots import restore, take_snapshot
from tbps.gallery.search.query import Query, Text
from tbps.gallery.store.manifest import recorded
from tbps.gallery.store.staleness import TRIES, read_again, reading
from tbps.gallery.store.table import Table
from tests.support.colour_encoder import ColourEncoder, write_pictures

SOURCE = Path(__file__).parents[3] / "src" / "tbps"


class Interrupted(ColourEncoder):
    """Runs `meanwhile` when it encodes texts: after a search has opened a version and before it reads hits."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.meanwhile: Callable[[int], object] = lambda call: None

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        self.calls += 1
        self.meanwhile(self.calls)
        return super().encode_texts(texts, batch_size)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "photos", 8)
    Gallery.open(tmp_path / "gallery", ColourEncoder()).add(tmp_path / "photos")
    return tmp_path / "gallery"


def _add_and_compact(folder: Path, number: int) -> None:
    (picture,) = write_pictures(folder.parent / f"more-{number}", 1, seed=100 + number)
    Gallery.open(folder, ColourEncoder()).add([picture])
    compact(folder)


def _truncate_data(folder: Path) -> None:
    for file in folder.glob("*.lance/data/*"):
        file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize("writer", ["compact", "forget", "restore"])
def test_a_version_that_is_removed_while_it_is_searched_is_searched_again(folder: Path, writer: str) -> None:
    take_snapshot(folder, "before")
    encoder = Interrupted()
    gallery = Gallery.open(folder, encoder)
    gallery.search("a man")
    first = min(hit.source for hit in gallery.search("a man", k=8))

    def write(call: int) -> None:
        if call == 3:
            if writer == "compact":
                _add_and_compact(folder, call)
            elif writer == "forget":
                Gallery.open(folder, ColourEncoder()).forget(f"source = '{first}'")
            else:
                restore(folder, "before")

    encoder.meanwhile = write
    hits = gallery.search("a man", k=99)
    assert len(hits) == {"compact": 9, "forget": 7, "restore": 8}[writer]
    assert hits == Gallery.open(folder, ColourEncoder()).search("a man", k=99)
    assert encoder.calls == 4  # two earlier searches, and two attempts


@pytest.mark.parametrize("error", [ValueError, TypeError, AssertionError, RuntimeError])
def test_an_error_in_our_own_code_is_neither_damage_nor_retried(folder: Path, error: type[Exception]) -> None:
    encoder = Interrupted()
    gallery = Gallery.open(folder, encoder)

    def fail(call: int) -> None:
        _add_and_compact(folder, call)  # even while the gallery changes
        raise error("a bug")

    encoder.meanwhile = fail
    with pytest.raises(error, match="a bug"):
        gallery.search("a man")
    assert encoder.calls == 1


def test_wrong_arguments_to_the_database_are_not_damage(folder: Path) -> None:
    table = Table.open(folder, recorded(folder).dim)
    assert table is not None
    with pytest.raises(ValueError, match="nosuch"):
        list(table.batches(["nosuch"]))
    with pytest.raises(ValueError, match="valid string"):
        table.rows(["x"], [3])  # type: ignore[list-item]


def test_an_error_while_rows_are_copied_is_raised_unchanged(folder: Path) -> None:
    table = Table.open(folder, recorded(folder).dim)
    assert table is not None
    updates = {id: {"camera": 3} for batch in table.batches(["id"]) for id in batch.column("id").to_pylist()}
    with pytest.raises(TypeError):  # 3 is not a text
        table.copy_changed((), updates, "images-9")
    _truncate_data(folder)
    with pytest.raises(GalleryError, match="is damaged"):
        table.copy_without((), "images-10")


def test_a_truncated_file_is_reported_as_damage_at_the_first_try(folder: Path) -> None:
    encoder = Interrupted()
    gallery = Gallery.open(folder, encoder)
    gallery.search("a man")
    encoder.meanwhile = lambda call: _truncate_data(folder)
    with pytest.raises(GalleryError, match="is damaged") as raised:
        gallery.search("a woman")
    assert not isinstance(raised.value, StaleVersionError) and encoder.calls == 2


def test_a_gallery_that_was_changed_and_then_damaged_is_reported_as_damaged(folder: Path) -> None:
    gallery = Gallery.open(folder, ColourEncoder())
    gallery.search("a man")
    _add_and_compact(folder, 1)
    _truncate_data(folder)
    with pytest.raises(GalleryError, match="is damaged"):
        gallery.search("a man")
    (folder / "images.lance").rename(folder / "moved.lance")
    (folder / "images.lance" / "data").mkdir(parents=True)
    (folder / "images.lance" / "data" / "left").write_bytes(b"x")
    with pytest.raises(GalleryError, match="is damaged"):
        gallery.search("a man")
    with pytest.raises(GalleryError, match="is damaged"):
        len(gallery)


def test_the_error_for_a_page_of_a_removed_version_says_so(folder: Path) -> None:
    gallery = Gallery.open(folder, ColourEncoder())
    page = gallery.find(Query(texts=(Text(text="a man"),), k=3))
    assert page.next is not None
    Gallery.open(folder, ColourEncoder()).forget(f"source = '{page.hits[0].source}'")
    with pytest.raises(QueryError, match=r"is no longer kept.*search again"):
        gallery.find(page.next)


def test_reading_stops_after_twenty_stale_versions(folder: Path) -> None:
    tries = []

    @read_again
    def read() -> None:
        tries.append(1)
        with reading(folder):
            (folder / "retention.json").write_text(f"{len(tries)}")
            raise GalleryError("missing file")

    with pytest.raises(StaleVersionError, match="was changed by another process while it was read"):
        read()
    assert len(tries) == TRIES


def test_stale_version_errors_are_raised_in_one_place() -> None:
    """`StaleVersionError` is raised once, and damage is caught only where it is compared with a newer version."""
    raised, caught = [], set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None and "StaleVersionError" in ast.unparse(node.exc):
                raised.append(file.name)
            if isinstance(node, ast.ExceptHandler) and node.type is not None and "GalleryError" in ast.unparse(node.type):
                caught.add(file.name)
    assert raised == ["staleness.py"] and caught == {"staleness.py", "versions.py"}
