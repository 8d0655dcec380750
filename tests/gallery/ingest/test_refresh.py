"""Pictures that changed after they were indexed: reported, and applied with `refresh`."""

import hashlib
import os
import random
import shutil
import tarfile
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tbps.errors import DataError, GalleryError
from tbps.gallery.gallery import Gallery
from tbps.gallery.ingest.footage import Footage
from tbps.gallery.lifecycle.reembed import Reembedding, reembed
from tbps.gallery.lifecycle.snapshots import restore, take_snapshot
from tbps.gallery.store.layout import REEMBED_FILE, heads, manifest_at, table_of
from tests.support.colour_encoder import ColourEncoder, write_pictures
from tests.support.differences import differences, hits_by_path, write_metadata
from tests.support.disk_states import recording


class Counting(ColourEncoder):
    """Counts the pictures that it embeds."""

    embedded = 0

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> np.ndarray:
        self.embedded += len(images)
        return super().encode_images(images, batch_size)


def _content_ids(folder: Path) -> dict[str, str]:
    """Path -> expected id, computed from the bytes of every file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest()[:24] for path in files}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "photos", 6)
    return tmp_path / "photos"


@pytest.fixture
def gallery(photos: Path, tmp_path: Path) -> Gallery:
    gallery = Gallery.open(tmp_path / "gallery", Counting())
    gallery.add(photos)
    return gallery


def _replacement(tmp_path: Path, seed: int = 77) -> bytes:
    return write_pictures(tmp_path / f"others-{seed}", 1, seed)[0].read_bytes()


def _all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_a_replaced_picture_is_reported_and_not_applied_without_refresh(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    before = hits_by_path(gallery)
    (photos / "0002.jpg").write_bytes(_replacement(tmp_path))
    for _ in range(2):
        report = gallery.add(photos)
        assert differences(report) == {"changed": ["0002.jpg"]} and not report.refreshed
        assert (report.added, report.skipped_existing, report.duplicates) == (0, 5, ())
        assert hits_by_path(gallery) == before


def test_refresh_stores_a_replaced_picture_and_deletes_the_former_from_disk(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    former = hits_by_path(gallery)[str(photos / "0002.jpg")]
    assert former.thumbnail in _all_bytes(gallery.path)
    content, facts = _replacement(tmp_path), os.stat(photos / "0002.jpg")
    size = max(len(content), facts.st_size)
    (photos / "0002.jpg").write_bytes(content + bytes(size - len(content)))
    os.utime(photos / "0002.jpg", ns=(facts.st_atime_ns, facts.st_mtime_ns))  # now only the content differs
    report = gallery.add(photos, refresh=True)
    assert differences(report) == {"changed": ["0002.jpg"]} and report.refreshed
    assert (report.added, report.erased, len(gallery)) == (1, 1, 6)
    assert {path: hit.id for path, hit in hits_by_path(gallery).items()} == _content_ids(photos)
    assert former.thumbnail not in _all_bytes(gallery.path)
    again = gallery.add(photos, refresh=True)
    assert differences(again) == {} and (again.added, again.skipped_existing) == (0, 6)


def test_a_snapshot_keeps_rows_that_refresh_replaces(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    before = hits_by_path(gallery)
    take_snapshot(gallery.path, "before")
    (photos / "0002.jpg").write_bytes(_replacement(tmp_path))
    gallery.add(photos, refresh=True)
    assert hits_by_path(gallery) != before
    restore(gallery.path, "before")
    assert hits_by_path(Gallery.open(gallery.path, ColourEncoder())) == before


def test_refresh_deletes_the_older_of_two_rows_with_one_path_from_version_0_1(
    gallery: Gallery, photos: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new" / "photos"
    shutil.copytree(photos, new)
    (new / "0002.jpg").write_bytes(_replacement(tmp_path))
    other = Gallery.open(tmp_path / "double", ColourEncoder())
    other.add(photos)
    other.add([new / "0002.jpg"])
    table = table_of(other.path / "gallery.json")
    assert table is not None
    # Version 0.1 kept the former row when it added new content: two rows have the same path.
    doubled = table.copy_changed(set(), {_content_ids(new)[str(new / "0002.jpg")]: {"root": str(photos)}}, "images-9")
    assert len(doubled) == 7
    head = other.path / "gallery.json"
    head.write_text(manifest_at(head).model_copy(update={"table": "images-9"}).model_dump_json())
    (photos / "0002.jpg").write_bytes((new / "0002.jpg").read_bytes())
    report = other.add(photos)
    assert differences(report) == {"changed": ["0002.jpg"]} and len(other) == 7
    report = other.add(photos, refresh=True)
    assert (report.erased, report.added) == (1, 0)
    assert {path: hit.id for path, hit in hits_by_path(other).items()} == _content_ids(photos)


def test_refresh_updates_paths_of_a_renamed_folder_so_that_it_can_be_reembedded(
    gallery: Gallery, photos: Path, tmp_path: Path
) -> None:
    moved = photos.rename(tmp_path / "renamed")
    other = ColourEncoder(seed=1)
    with pytest.raises(GalleryError, match="index the folder where they are now with --refresh"):
        reembed(gallery.path, other)
    (gallery.path / REEMBED_FILE).unlink()
    before = hits_by_path(gallery)
    report = gallery.add(moved)
    assert differences(report) == {"moved": [f"{n:04d}.jpg" for n in range(6)]}
    assert report.moved[0] == ("0000.jpg", f"was indexed as {photos}/0000.jpg")
    assert hits_by_path(gallery) == before and report.added == 0
    embedded = gallery._model.embedded  # type: ignore[attr-defined]
    report = gallery.add(moved, refresh=True)
    assert gallery._model.embedded == embedded  # type: ignore[attr-defined]
    assert {path: hit.id for path, hit in hits_by_path(gallery).items()} == _content_ids(moved)
    assert {hit.thumbnail for hit in hits_by_path(gallery).values()} == {hit.thumbnail for hit in before.values()}
    assert reembed(gallery.path, other).images == 6
    assert differences(Gallery.open(gallery.path, other).add(moved)) == {}


def test_two_pictures_that_swapped_names(gallery: Gallery, photos: Path) -> None:
    for old, new in (("0001.jpg", "x"), ("0003.jpg", "0001.jpg"), ("x", "0003.jpg")):
        (photos / old).rename(photos / new)
    report = gallery.add(photos)
    assert differences(report) == {"changed": ["0001.jpg", "0003.jpg"], "moved": ["0001.jpg", "0003.jpg"]}
    report = gallery.add(photos, refresh=True)
    assert (report.added, report.erased) == (0, 0)
    assert {path: hit.id for path, hit in hits_by_path(gallery).items()} == _content_ids(photos)


def test_a_copy_is_a_duplicate_and_not_a_move(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "copy")
    report = gallery.add(tmp_path / "copy", refresh=True)
    assert len(report.duplicates) == 6 and differences(report) == {}
    assert {hit.root for hit in hits_by_path(gallery).values()} == {str(photos)}


def test_a_duplicate_in_another_folder_is_reported_with_the_folder_of_the_original(
    gallery: Gallery, photos: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(photos / "0001.jpg", other)
    report = gallery.add(other)
    assert report.duplicates == (("0001.jpg", f"has the same content as {photos}/0001.jpg, which was kept"),)


def test_all_copies_are_reported_including_those_of_moved_pictures(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    for name in ("copy-1.jpg", "copy-2.jpg"):
        shutil.copy(photos / "0001.jpg", photos / name)
    report = gallery.add(photos)
    assert [name for name, _ in report.duplicates] == ["copy-1.jpg", "copy-2.jpg"] and differences(report) == {}
    (photos / "0001.jpg").unlink()
    report = gallery.add(photos, refresh=True)
    assert differences(report) == {"moved": ["copy-1.jpg"]}
    assert report.duplicates == (("copy-2.jpg", "has the same content as copy-1.jpg, which was kept"),)
    assert str(photos / "copy-1.jpg") in hits_by_path(gallery) and str(photos / "0001.jpg") not in hits_by_path(gallery)


def test_missing_files_are_reported_and_their_rows_kept(gallery: Gallery, photos: Path) -> None:
    before = hits_by_path(gallery)
    (photos / "0004.jpg").unlink()
    for refresh in (False, True):
        report = gallery.add(photos, refresh=refresh)
        assert report.gone == (("0004.jpg", f"is no longer in {photos}"),)
        assert differences(report) == {"gone": ["0004.jpg"]} and report.erased == 0
        assert hits_by_path(gallery) == before
    assert differences(gallery.add([photos / "0001.jpg"])) == {}  # indexing one file does not check the rest of its folder


def test_an_unplugged_drive_deletes_no_rows(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    before = hits_by_path(gallery)
    away = photos.rename(tmp_path / "away")
    with pytest.raises(DataError, match="does not exist"):
        gallery.add(photos, refresh=True)
    photos.mkdir()  # the empty mount point of the drive
    with pytest.raises(DataError, match="holds no picture"):
        gallery.add(photos, refresh=True)
    write_pictures(photos, 1, seed=5)
    report = gallery.add(photos, refresh=True)
    assert differences(report) == {"changed": ["0000.jpg"], "gone": [f"{n:04d}.jpg" for n in range(1, 6)]}
    shutil.rmtree(photos)
    away.rename(photos)
    report = gallery.add(photos, refresh=True)
    assert hits_by_path(gallery) == before


def test_files_in_an_unreadable_folder_are_not_reported_as_gone(
    gallery: Gallery, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "inner").mkdir()
    gallery.add([*write_pictures(photos / "inner", 1, seed=8)])
    lstat = os.lstat

    def refuse(path: str) -> os.stat_result:
        if "inner" in str(path):
            raise PermissionError(13, "Permission denied")
        return lstat(path)

    monkeypatch.setattr(os, "lstat", refuse)
    assert differences(gallery.add([photos / "0001.jpg", photos])) == {}


def test_refresh_updates_columns_to_corrected_metadata_without_embedding_again(photos: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in photos.iterdir())
    write_metadata(photos, *({"file_name": name, "camera": "a", "identity": "7", "colour": "red", "age": 3} for name in names))
    gallery = Gallery.open(tmp_path / "gallery", Counting())
    gallery.add(photos)
    embedded = gallery._model.embedded  # type: ignore[attr-defined]
    lines: list[dict[str, object]] = [
        {"file_name": name, "camera": "a", "identity": "7", "colour": "red", "age": 3} for name in names
    ]
    lines[1] |= {"camera": "b", "captured_at": "2024-05-01T08:00:00"}
    lines[2] = {"file_name": names[2], "colour": "blue", "size": "tall"}
    lines[3] |= {"camera": None}
    write_metadata(photos, *lines)
    before = hits_by_path(gallery)
    report = gallery.add(photos)
    assert report.corrected == (
        ("0001.jpg", "was indexed with other metadata (camera, captured_at)"),
        ("0002.jpg", "was indexed with other metadata (identity, other columns)"),
        ("0003.jpg", "was indexed with other metadata (camera)"),
    )
    assert hits_by_path(gallery) == before
    gallery.add(photos, refresh=True)
    fresh = Gallery.open(tmp_path / "fresh", ColourEncoder())
    fresh.add(photos)
    expected = hits_by_path(fresh)
    path = str(photos / "0002.jpg")
    expected[path] = replace(expected[path], camera="a")  # a line without a camera keeps the stored one
    assert hits_by_path(gallery) == expected
    assert {hit.source for hit in gallery.search("x", 9, "size = 'tall' and colour = 'blue' and age is null")} == {"0002.jpg"}
    assert gallery._model.embedded == embedded  # type: ignore[attr-defined]
    assert differences(gallery.add(photos)) == {}


def test_indexing_without_metadata_corrects_nothing(photos: Path, tmp_path: Path) -> None:
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    write_metadata(photos, *({"file_name": f"{n:04d}.jpg", "identity": "7"} for n in range(6)))
    gallery.add(photos, footage=Footage(camera="lobby"))
    before = hits_by_path(gallery)
    assert differences(gallery.add(photos, refresh=True)) == {}
    (photos / "metadata.jsonl").unlink()
    assert differences(gallery.add(photos, refresh=True)) == {}
    assert hits_by_path(gallery) == before
    report = gallery.add(photos, footage=Footage(camera="gate"), refresh=True)
    assert len(report.corrected) == 6
    assert hits_by_path(gallery) == {path: replace(hit, camera="gate") for path, hit in before.items()}


def test_metadata_of_a_duplicate_do_not_correct_the_picture_that_was_kept(photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "0001.jpg", photos / "zz.jpg")
    write_metadata(photos, {"file_name": "0001.jpg", "camera": "a"}, {"file_name": "zz.jpg", "camera": "b"})
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    for refresh in (False, True, True):
        report = gallery.add(photos, refresh=refresh)
        assert [name for name, _ in report.duplicates] == ["zz.jpg"] and differences(report) == {}
    assert [hit.camera for hit in hits_by_path(gallery).values()] == ["a"]


def test_a_folder_that_was_moved_and_described_differently(photos: Path, tmp_path: Path) -> None:
    write_metadata(photos, *({"file_name": f"{n:04d}.jpg", "camera": "a"} for n in range(6)))
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(photos)
    moved = photos.rename(tmp_path / "renamed")
    write_metadata(moved, *({"file_name": f"{n:04d}.jpg", "camera": "b"} for n in range(6)))
    report = gallery.add(moved, refresh=True)
    assert len(report.moved) == len(report.corrected) == 6
    assert {(hit.root, hit.camera) for hit in hits_by_path(gallery).values()} == {(str(moved), "b")}


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_members_of_an_archive_that_was_written_again(ending: str, photos: Path, tmp_path: Path) -> None:
    def pack(*names: str) -> Path:
        place = tmp_path / "shards" / f"people.{ending}"
        place.parent.mkdir(exist_ok=True)
        with tarfile.open(place, "w:gz" if ending.endswith("gz") else "w") as tar:
            for name in names:
                tar.add(photos / name, f"in/{name}")
        return place

    shards = pack("0000.jpg", "0001.jpg", "0002.jpg").parent
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(shards)
    (photos / "0001.jpg").write_bytes(_replacement(tmp_path))
    pack("0000.jpg", "0001.jpg")
    for refresh in (False, True):
        report = gallery.add(shards, refresh=refresh)
        name = f"people.{ending}/in/000"
        assert differences(report) == {"changed": [f"{name}1.jpg"], "gone": [f"{name}2.jpg"]}
        assert report.added == int(refresh)
    ids = {Path(path).name: each for path, each in _content_ids(photos).items()}
    held = {hit.source.rpartition("/")[2]: hit.id for hit in hits_by_path(gallery).values()}
    assert held == {name: ids[name] for name in ("0000.jpg", "0001.jpg", "0002.jpg")}
    (shards / f"people.{ending}").rename(shards / f"persons.{ending}")
    report = gallery.add(shards, refresh=True)
    assert len(report.moved) == 2 and len(report.gone) == 1
    assert differences(gallery.add(shards)) == {"gone": [f"people.{ending}/in/0002.jpg"]}


def test_refresh_after_random_changes_equals_a_new_gallery(tmp_path: Path) -> None:
    draw = random.Random(4)
    contents = [path.read_bytes() for path in write_pictures(tmp_path / "contents", 40)]
    for round_ in range(6):
        folder = tmp_path / f"round-{round_}"
        places = [folder / f"{part}/{n}.jpg" for part in ("a", "b/c") for n in range(6)]
        gallery = Gallery.open(tmp_path / f"gallery-{round_}", ColourEncoder())
        unused = draw.sample(contents, len(contents))
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(unused.pop())
        gallery.add(folder)
        if draw.random() < 0.5:
            folder = folder.rename(tmp_path / f"renamed-{round_}")
        for _ in range(8):
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            one, two = draw.sample(files, 2)
            what = draw.choice(["replace", "swap", "move", "add", "remove"])
            if what == "replace":
                one.write_bytes(unused.pop())
            elif what == "swap":
                first, second = one.read_bytes(), two.read_bytes()
                one.write_bytes(second)
                two.write_bytes(first)
            elif what == "move":
                one.rename(one.with_name(f"moved-{draw.randrange(10**9)}.jpg"))
            elif what == "add":
                (folder / f"new-{draw.randrange(10**9)}.jpg").write_bytes(unused.pop())
            else:
                one.unlink()
        before = hits_by_path(gallery)
        gallery.add(folder)
        kept = {hit.id: hit for hit in hits_by_path(gallery).values()}
        assert all(kept[hit.id] == hit for hit in before.values()), "without refresh no row changes"
        report = gallery.add(folder, refresh=True)
        there = {path: hit.id for path, hit in hits_by_path(gallery).items() if Path(path).is_file()}
        assert there == _content_ids(folder)
        assert len(gallery) == len(there) + len(report.gone)
        assert set(differences(gallery.add(folder, refresh=True))) <= {"gone"}


def test_refresh_updates_an_unfinished_reembedding_too(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    other = ColourEncoder(seed=1)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reembed(gallery.path, other, Reembedding(thumbnails=True), interrupt)
    (photos / "0002.jpg").write_bytes(_replacement(tmp_path))
    (photos / "0003.jpg").rename(photos / "0009.jpg")
    gallery.add(photos, refresh=True)
    reembed(gallery.path, other)
    held = Gallery.open(gallery.path, other)
    assert {path: hit.id for path, hit in hits_by_path(held).items()} == _content_ids(photos)


def test_a_kill_at_any_step_loses_no_row_and_the_next_refresh_completes_it(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    before = set(_content_ids(photos).values())
    (photos / "0002.jpg").write_bytes(_replacement(tmp_path))
    (photos / "0003.jpg").rename(photos / "0009.jpg")
    after = _content_ids(photos)
    with recording(gallery.path, tmp_path / "states") as states:
        gallery.add(photos, refresh=True)
    assert len(states.states) > 3
    for state in states.states:
        killed = Gallery.open(state, ColourEncoder())
        held = {hit.id for hit in hits_by_path(killed).values()}
        assert held >= before & set(after.values()) and held <= before | set(after.values())
        killed.add(photos, refresh=True)
        assert {path: hit.id for path, hit in hits_by_path(killed).items()} == after
        assert [len(heads(state)), len(list(state.glob("*.lance")))] == [1, 1]


def test_an_interrupted_refresh_can_be_repeated_while_another_writer_adds(gallery: Gallery, photos: Path, tmp_path: Path) -> None:
    for n in range(6):
        (photos / f"{n:04d}.jpg").write_bytes(_replacement(tmp_path, 80 + n))
    extra = write_pictures(tmp_path / "extra", 3, seed=50)

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gallery.add(photos, on_progress=interrupt, batch_size=1, refresh=True)
    added: list[int] = []

    def meanwhile(done: int, total: int) -> None:
        if not added:
            added.append(Gallery.open(gallery.path, ColourEncoder()).add(extra).added)

    gallery.add(photos, on_progress=meanwhile, refresh=True)
    held = {path: hit.id for path, hit in hits_by_path(gallery).items()}
    assert held == _content_ids(photos) | _content_ids(tmp_path / "extra")


def test_names_in_composed_and_decomposed_unicode_are_the_same_file(tmp_path: Path) -> None:
    name = "Zoë.jpg"
    old = tmp_path / "photos" / unicodedata.normalize("NFD", name)
    write_pictures(tmp_path / "photos", 1)[0].rename(old)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(tmp_path / "photos")
    new = old.rename(old.with_name(unicodedata.normalize("NFC", name)))
    report = gallery.add(tmp_path / "photos", refresh=True)
    assert [name for name, _ in report.moved] == [new.name] and report.duplicates == report.gone == ()
    assert [hit.path for hit in hits_by_path(gallery).values()] == [new]
    new.write_bytes(_replacement(tmp_path))
    assert differences(gallery.add(tmp_path / "photos")) == {"changed": [new.name]}
