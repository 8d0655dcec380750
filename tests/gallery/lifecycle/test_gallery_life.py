"""Description, compaction, snapshots and re-embedding of a gallery, with kills at every step."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tbps.errors import GalleryError, MixedModelsError, SettingsError
from tbps.gallery.gallery import Gallery
from tbps.gallery.lifecycle import reembed as reembedding
from tbps.gallery.lifecycle.compact import compact
from tbps.gallery.lifecycle.forget import forget
from tbps.gallery.lifecycle.info import describe
from tbps.gallery.lifecycle.reembed import Reembedding, reembed
from tbps.gallery.lifecycle.retention import change_retention
from tbps.gallery.lifecycle.snapshots import remove_snapshot, restore, snapshots, take_snapshot
from tbps.gallery.store import table as table_module
from tbps.gallery.store.layout import bytes_on_disk
from tbps.gallery.store.manifest import recorded
from tbps.preprocess.image import open_image
from tests.support.colour_encoder import ColourEncoder, write_pictures
from tests.support.disk_states import recording

COUNT = 60


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return write_pictures(tmp_path / "photos", COUNT)


@pytest.fixture
def folder(tmp_path: Path, photos: list[Path]) -> Path:
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(photos[:25], [{"camera": "lobby", "captured_at": f"2024-05-{n + 1:02d}"} for n in range(25)])
    gallery.add(photos[25:], [{"camera": "gate", "coat": "red"} for _ in range(35)])
    return tmp_path / "gallery"


def _answers(folder: Path, seed: int = 0, where: str | None = None) -> dict[str, float]:
    hits = Gallery.open(folder, ColourEncoder(seed)).search_embedding(np.ones(24), k=2 * COUNT, where=where)
    return {hit.source: round(hit.score, 5) for hit in hits}


def _expected(photos: list[Path], seed: int) -> dict[str, float]:
    """File name -> expected score of every picture, computed with the encoder."""
    query = np.ones(24) / np.sqrt(24)
    images = ColourEncoder(seed).encode_images([open_image(path) for path in photos]).astype(float)
    return {path.name: round(float(score), 5) for path, score in zip(photos, images @ query, strict=True)}


def test_describe(folder: Path) -> None:
    take_snapshot(folder, "monday")
    change_retention(folder, {"lobby": 30})
    found = describe(folder)
    assert (found.images, found.model, found.dim, found.erasing, found.reembedding) == (COUNT, "colours-0", 24, False, None)
    assert [(c.camera, c.images, c.first, c.last) for c in found.cameras] == [
        ("gate", 35, None, None),
        ("lobby", 25, datetime(2024, 5, 1), datetime(2024, 5, 25)),
    ]
    assert [(s.name, s.images, s.model) for s in found.snapshots] == [("monday", COUNT, "colours-0")]
    assert dict(found.retention.cameras) == {"lobby": 30}
    sizes = {(path.stat().st_ino): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert found.bytes == sum(sizes.values())
    assert Gallery.open(folder, ColourEncoder()).info() == found
    empty = Gallery.open(folder.parent / "empty", ColourEncoder(seed=4)).info()
    assert (empty.images, empty.model, empty.cameras, empty.versions) == (0, "colours-4", (), 0)


def test_compaction_removes_old_versions_and_the_rows_of_killed_writers(folder: Path) -> None:
    Gallery.open(folder, ColourEncoder()).add([Image.new("RGB", (4, 8))])  # too few rows for the clean-up at the end of `add`
    before = _answers(folder)
    leftover = folder / "images.lance" / "data" / "0101.lance"
    leftover.write_bytes(bytes(20_000))
    report = compact(folder)
    assert report.versions_before > report.versions_after == describe(folder).versions == 1
    assert report.bytes_after == bytes_on_disk(folder) <= report.bytes_before - 15_000
    assert not leftover.exists() and len(list((folder / "images.lance" / "data").iterdir())) == 1
    assert _answers(folder) == before


def test_compaction_removes_its_own_intermediate_version_even_if_it_is_fast(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "_AGE", timedelta(seconds=0.5))  # far longer than merging takes
    Gallery.open(folder, ColourEncoder()).add([Image.new("RGB", (4, 8))])
    report = compact(folder)
    assert report.seconds > 0.5 and report.versions_after == 1
    assert len(list((folder / "images.lance" / "data").iterdir())) == 1


def test_a_snapshot_takes_little_space_and_can_be_restored(folder: Path, photos: list[Path], tmp_path: Path) -> None:
    compact(folder)
    before, size = _answers(folder), bytes_on_disk(folder)
    assert take_snapshot(folder, "monday").images == COUNT
    assert bytes_on_disk(folder) - size < size / 10
    reader = Gallery.open(folder, ColourEncoder())
    reader.add(write_pictures(tmp_path / "more", 9, seed=3))
    assert len(reader) == COUNT + 9
    restore(folder, "monday")
    assert _answers(folder) == before and len(reader) == COUNT
    assert reader.add(sorted((tmp_path / "more").iterdir())).added == 9
    remove_snapshot(folder, "monday")
    assert snapshots(folder) == [] and len(reader) == COUNT + 9


def test_invalid_snapshots(folder: Path) -> None:
    take_snapshot(folder, "monday")
    with pytest.raises(GalleryError, match="has a snapshot 'monday' already"):
        take_snapshot(folder, "monday")
    for name in ("../x", ".hidden", "a/b", "", "x" * 65):
        with pytest.raises(SettingsError, match="use letters, digits"):
            take_snapshot(folder, name)
    for action in (restore, remove_snapshot):
        with pytest.raises(GalleryError, match="has no snapshot 'friday'; there are: monday"):
            action(folder, "friday")


def test_a_kill_while_a_snapshot_is_taken_restored_or_removed_leaves_a_whole_gallery(folder: Path, tmp_path: Path) -> None:
    gallery = Gallery.open(folder, ColourEncoder())
    with recording(folder, tmp_path / "states") as recorded_states:
        take_snapshot(folder, "monday")
        gallery.forget("source = '0003.jpg'")
        restore(folder, "monday")
        remove_snapshot(folder, "monday")
    whole = _answers(folder)
    assert len(whole) == COUNT - 1 and len(recorded_states.states) > 15
    for state in recorded_states.states:
        answers = _answers(state)
        assert len(answers) in (COUNT - 1, COUNT) and whole.items() <= answers.items()
        for snapshot in snapshots(state):
            assert snapshot.images in (COUNT - 1, len(answers))
            restore(state, snapshot.name)
        forget(state, "source = '0003.jpg'")
        assert _answers(state) == whole
        assert {path.name.split("-")[0] for path in state.iterdir()} <= {
            ".lock",
            "gallery.json",
            "images.lance",
            "images",
            "snapshots",
        }
        shutil.rmtree(state)


def test_reembedding_switches_models_when_every_image_is_embedded(folder: Path, photos: list[Path], tmp_path: Path) -> None:
    old = Gallery.open(folder, ColourEncoder())
    more = [path.rename(path.with_name(f"more-{path.name}")) for path in write_pictures(tmp_path / "more", 5, seed=3)]
    gone = photos.pop(30)
    seen = []

    def meanwhile(done: int, total: int) -> None:
        """Searches with the old model, and deletes and adds images."""
        seen.append((done, total, len(old.search_embedding(np.ones(24), k=99))))
        if done == 0:
            old.forget(f"source = '{gone.name}'")
            old.add(more)

    report = reembed(folder, ColourEncoder(seed=1), on_progress=meanwhile)
    assert seen[0] == (0, COUNT, COUNT) and seen[-1][2] == COUNT + 4
    assert (report.images, report.from_thumbnails, report.resumed) == (COUNT + 4, 0, 0)
    with pytest.raises(MixedModelsError, match=r"embeddings of model 'colours-1' .* not of 'colours-0'"):
        old.search_embedding(np.ones(24))
    assert _answers(folder, 1).keys() == {p.name for p in photos} | {p.name for p in more}
    assert _answers(folder, 1, "camera is not null") == pytest.approx(_expected(photos, 1), abs=2e-5)
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "gallery.json", "images-2.lance"]
    assert len(_answers(folder, 1, "captured_at < '2024-05-03' and camera = 'lobby'")) == 2
    with pytest.raises(SettingsError, match="embedded with 'colours-1' already"):
        reembed(folder, ColourEncoder(seed=1))


def test_an_interrupted_reembedding_is_resumed(folder: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reembedding, "_COMMIT_ROWS", 16)

    def stop(done: int, total: int) -> None:
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reembed(folder, ColourEncoder(seed=1), on_progress=stop)
    half = describe(folder).reembedding
    assert half is not None and (half.model, half.images) == ("colours-1", 32)
    assert _answers(folder) == pytest.approx(_expected(photos, 0), abs=2e-5)
    with pytest.raises(GalleryError, match=r"with 'colours-1' is unfinished; finish that first, or drop it with --restart"):
        reembed(folder, ColourEncoder(seed=2))
    report = reembed(folder, ColourEncoder(seed=1))
    assert (report.images, report.resumed) == (COUNT - 32, 32)
    assert len(_answers(folder, 1, "coat = 'red'")) == 35
    assert _answers(folder, 1) == pytest.approx(_expected(photos, 1), abs=2e-5)
    with pytest.raises(KeyboardInterrupt):
        reembed(folder, ColourEncoder(seed=2), on_progress=stop)
    assert reembed(folder, ColourEncoder(seed=3), Reembedding(restart=True)).resumed == 0
    assert _answers(folder, 3) == pytest.approx(_expected(photos, 3), abs=2e-5)


def test_a_kill_during_reembedding_leaves_one_whole_gallery(
    folder: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reembedding, "_COMMIT_ROWS", 25)
    with recording(folder, tmp_path / "states") as states:
        reembed(folder, ColourEncoder(seed=1))
    models = []
    for state in states.states:
        seed = int(recorded(state).encoder_fingerprint)
        models.append(seed)
        assert _answers(state, seed) == pytest.approx(_expected(photos, seed), abs=2e-5)
        if seed == 0:
            reembed(state, ColourEncoder(seed=1))
        else:
            compact(state)
        assert _answers(state, 1) == pytest.approx(_expected(photos, 1), abs=2e-5)
        assert len([path for path in state.iterdir() if path.suffix == ".lance"]) == 1 and not (state / "reembed.json").exists()
        shutil.rmtree(state)
    assert models == sorted(models) and {0, 1} == set(models) and len(models) > 6


def test_reembedding_with_missing_or_changed_files(folder: Path, photos: list[Path]) -> None:
    photos[3].unlink()
    with pytest.raises(GalleryError, match=r"1 images can no longer be read .* such as 0003.jpg; .* \(--thumbnails\)"):
        reembed(folder, ColourEncoder(seed=1))
    Gallery.open(folder, ColourEncoder()).forget("source = '0003.jpg'")
    Image.new("RGB", (16, 32), "red").save(photos[4])
    with pytest.raises(GalleryError, match=r"1 images can no longer be read .* such as 0004.jpg"):
        reembed(folder, ColourEncoder(seed=1))
    assert len(_answers(folder)) == COUNT - 1
    report = reembed(folder, ColourEncoder(seed=1), Reembedding(thumbnails=True))
    assert (report.images, report.from_thumbnails, report.resumed) == (1, 1, COUNT - 2)
    best = Gallery.open(folder, ColourEncoder(seed=1)).search("x", 99, "source = '0004.jpg'")
    assert len(best) == 1


def test_pictures_without_files_are_reembedded_from_thumbnails(tmp_path: Path) -> None:
    folder = tmp_path / "gallery"
    Gallery.open(folder, ColourEncoder()).add([Image.new("RGB", (20, 40), colour) for colour in ("red", "blue")])
    with pytest.raises(GalleryError, match="2 images can no longer be read"):
        reembed(folder, ColourEncoder(seed=1))
    assert reembed(folder, ColourEncoder(seed=1), Reembedding(thumbnails=True)).from_thumbnails == 2
    found = Gallery.open(folder, ColourEncoder(seed=1)).search_image(Image.new("RGB", (20, 40), "blue"), k=1)[0]
    assert found.source == "picture-000001" and found.score > 0.99


def test_an_empty_gallery(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="there is no gallery"):
        describe(tmp_path / "nowhere")
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add([Image.new("RGB", (4, 8))])
    assert gallery.forget("true").images == 1
    assert reembed(tmp_path / "gallery", ColourEncoder(seed=1)).images == 0
    assert _answers(tmp_path / "gallery", 1) == {}
    (tmp_path / "begun").mkdir()
    shutil.copy(tmp_path / "gallery" / "gallery.json", tmp_path / "begun")
    for action in (compact, lambda folder: take_snapshot(folder, "x"), lambda folder: reembed(folder, ColourEncoder())):
        with pytest.raises(GalleryError, match="is empty; there is nothing"):
            action(tmp_path / "begun")
