"""Rows of scenes and videos with two writers, after forgetting, in snapshots and exports, and re-embedded."""

import tarfile
from pathlib import Path

import pytest

from tbps.errors import GalleryError
from tbps.gallery.gallery import Gallery
from tbps.gallery.ingest.footage import Footage, FootageSettings
from tbps.gallery.ingest.record import Finished, Record
from tbps.gallery.lifecycle.reembed import Reembedding, reembed
from tbps.gallery.lifecycle.snapshots import restore, take_snapshot
from tbps.gallery.lifecycle.transfer import export, import_export
from tbps.gallery.store.layout import FOOTAGE_FILE
from tbps.preprocess.image import open_image
from tbps.video.detectors.ready_made import JsonDetector
from tests.support.colour_encoder import ColourEncoder, write_pictures
from tests.support.walkers import Walker, film, still, write_detections, write_film

WALKERS = [Walker(3, 40, 200, 150, 270), Walker(4, 440, -60, 160, 285)]


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Footage]:
    """A video of two people, and the settings to search it."""
    folder = tmp_path_factory.mktemp("filmed")
    frames, truth = film(WALKERS, 20)
    detections = write_detections(folder / "lobby.json", "lobby.mp4", truth)
    footage = Footage(FootageSettings(every_frames=1, best_per_track=1), JsonDetector(detections))
    return write_film(folder / "lobby.mp4", frames), footage


def test_a_video_that_another_process_finishes_first_adds_no_rows_and_no_forgotten_people(
    filmed: tuple[Path, Footage], tmp_path: Path
) -> None:
    video, footage = filmed
    first, second = (Gallery.open(tmp_path / "gallery", ColourEncoder()) for _ in range(2))
    met: list[int] = []

    def meanwhile(name: str, done: int, total: int) -> None:
        if not met:
            met.append(first.add(video, footage=footage).added)
            first.forget(where="box_width > 0")

    report = second.add(video, footage=Footage(footage.settings, footage.detector, on_video=meanwhile))
    assert met == [2] and (report.added, report.skipped_existing) == (0, 2)
    assert len(second) == 0
    assert len((tmp_path / "gallery" / FOOTAGE_FILE).read_text().split()) == 2  # one line: key and digest
    again = second.add(video, footage=footage)
    assert (again.added, again.skipped_existing, again.duplicates) == (0, 1, ())


def test_two_writers_of_one_record_keep_each_others_lines(tmp_path: Path) -> None:
    file = tmp_path / FOOTAGE_FILE
    first, second = Record(file), Record(file)
    first.append({"a": {"camera": "x"}})
    second.append({"b": {}})
    second.append({"a": {"camera": "y"}})
    first.refresh()
    assert "a" in first and "b" in first and "b" in Record(file)
    assert not second.differs(Finished("a", {"camera": "x"}))  # the first entry is kept
    file.unlink()
    first.refresh()
    assert "a" not in first


def test_restoring_a_snapshot_restores_its_record(filmed: tuple[Path, Footage], tmp_path: Path) -> None:
    video, footage = filmed
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(write_pictures(tmp_path, 3, 0))
    take_snapshot(gallery.path, "before")
    gallery.add(video, footage=footage)
    take_snapshot(gallery.path, "after")
    restore(gallery.path, "before")
    assert len(gallery) == 3 and not (gallery.path / FOOTAGE_FILE).exists()
    restore(gallery.path, "after")
    assert len(gallery) == 5 and gallery.add(video, footage=footage).skipped_existing == 1
    restore(gallery.path, "before")
    assert gallery.add(video, footage=footage).added == 2


def test_an_export_has_no_record_of_finished_videos(filmed: tuple[Path, Footage], tmp_path: Path) -> None:
    video, footage = filmed
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(video, footage=footage)
    export(gallery.path, tmp_path / "out")
    import_export(tmp_path / "copy", tmp_path / "out", ColourEncoder())
    copy = Gallery.open(tmp_path / "copy", ColourEncoder())
    assert not (copy.path / FOOTAGE_FILE).exists()
    report = copy.add(video, footage=footage)
    assert (report.added, report.skipped_existing, report.duplicates, len(report.videos)) == (0, 2, (), 1)


def test_crops_and_archive_members_are_reembedded_from_thumbnails_only(filmed: tuple[Path, Footage], tmp_path: Path) -> None:
    video, footage = filmed
    scene, truth = still(WALKERS)
    scene.save(tmp_path / "hall.png")
    detector = JsonDetector(write_detections(tmp_path / "hall.json", "hall.png", [truth]))
    photos = write_pictures(tmp_path / "photos", 5)
    with tarfile.open(tmp_path / "more.tar", "w") as archive:
        archive.add(photos[4], "4.jpg")
    folder, other = tmp_path / "gallery", ColourEncoder(seed=1)
    gallery = Gallery.open(folder, ColourEncoder())
    gallery.add(photos[:4], [dict.fromkeys(("box_x", "box_y", "box_width", "quality"), 9) | {"box_height": -9}, {}, {}, {}])
    reports = [
        gallery.add(tmp_path / "more.tar"),
        gallery.add(video, footage=footage),
        gallery.add(tmp_path / "hall.png", footage=Footage(FootageSettings(photographs=True), detector)),
    ]
    assert [report.added for report in reports] == [1, 2, 2]
    with pytest.raises(GalleryError, match=r"^5 images were cut out .* have no file of their own .*--thumbnails"):
        reembed(folder, other)
    photos[1].unlink()
    with pytest.raises(GalleryError, match=r"^1 images can no longer .* such as 0001.jpg, and 5 were cut out .*--thumbnails"):
        reembed(folder, other)
    report = reembed(folder, other, Reembedding(thumbnails=True))
    assert (report.images, report.from_thumbnails) == (9, 6)
    shown = Gallery.open(folder, other)
    crops = shown.search("x", 9, "box_height > 0")
    assert len(crops) == 4
    for hit in crops:
        thumbnail = open_image(hit.thumbnail)
        assert shown.search_image(thumbnail, 1)[0].id == hit.id  # not the whole scene or frame
