"""Scenes and videos that changed after they were indexed: reported, and applied with `refresh`."""

import os
import shutil
import tarfile
import zipfile
from datetime import datetime
from pathlib import Path

import pytest

from tbps.gallery.gallery import Gallery
from tbps.gallery.ingest.footage import Footage, FootageSettings
from tbps.video.detectors.ready_made import JsonDetector
from tests.support.colour_encoder import ColourEncoder
from tests.support.differences import differences, hits_by_path, write_metadata
from tests.support.walkers import Walker, film, still, write_detections, write_film


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, JsonDetector]:
    """Two videos of 20 frames, each of two other people with the same detections."""
    folder = tmp_path_factory.mktemp("films")
    walkers = [Walker(3, 40, 200, 150, 270), Walker(4, 440, -60, 160, 285)]
    others = [Walker(8, 40, 200, 150, 270), Walker(9, 440, -60, 160, 285)]
    frames, truth = film(walkers, 20)
    detections = write_detections(folder / "lobby.json", "lobby.mp4", truth)
    return (
        write_film(folder / "first.mp4", frames),
        write_film(folder / "second.mp4", film(others, 20)[0]),
        JsonDetector(detections),
    )


def _looking(detector: JsonDetector, **options: object) -> Footage:
    settings = FootageSettings(every_frames=1, best_per_track=1, photographs=bool(options.pop("photographs", False)))
    return Footage(settings, detector, **options)  # type: ignore[arg-type]


def test_a_video_that_was_replaced_in_place(films: tuple[Path, Path, JsonDetector], tmp_path: Path) -> None:
    first, second, detector = films
    place = tmp_path / "films" / "lobby.mp4"
    place.parent.mkdir()
    shutil.copy(first, place)
    gallery, footage = Gallery.open(tmp_path / "gallery", ColourEncoder()), _looking(detector)
    gallery.add(place.parent, footage=footage)
    of_first = hits_by_path(gallery)
    shutil.copy(second, place)
    report = gallery.add(place.parent, footage=footage)
    assert differences(report) == {"changed": ["lobby.mp4"]} and report.videos == ()
    assert hits_by_path(gallery) == of_first
    report = gallery.add(place.parent, footage=footage, refresh=True)
    assert (report.added, report.erased) == (2, 2) and len(report.videos) == 1
    fresh = Gallery.open(tmp_path / "fresh", ColourEncoder())
    fresh.add(place.parent, footage=footage)
    assert hits_by_path(gallery) == hits_by_path(fresh) != of_first
    assert differences(gallery.add(place.parent, footage=footage)) == {}
    shutil.copy(first, place)  # the first video again, which is recorded as finished
    gallery.add(place.parent, footage=footage, refresh=True)
    assert hits_by_path(gallery) == of_first


def test_searching_a_video_with_other_settings_is_no_change(films: tuple[Path, Path, JsonDetector], tmp_path: Path) -> None:
    place = tmp_path / "films" / "lobby.mp4"
    place.parent.mkdir()
    shutil.copy(films[0], place)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(place.parent, footage=_looking(films[2]))
    closer = Footage(FootageSettings(every_frames=2, best_per_track=2), films[2])
    report = gallery.add(place.parent, footage=closer, refresh=True)
    assert len(report.videos) == 1 and differences(report) == {} and report.erased == 0


def test_a_video_that_was_renamed_and_whose_metadata_were_corrected(films: tuple[Path, Path, JsonDetector], tmp_path: Path) -> None:
    place = tmp_path / "films" / "lobby.mp4"
    place.parent.mkdir()
    shutil.copy(films[0], place)
    write_metadata(place.parent, {"file_name": "lobby.mp4", "camera": "a", "captured_at": "2024-05-01T08:00:00", "site": "north"})
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(place.parent, footage=_looking(films[2]))
    new = place.rename(place.with_name("hall.mp4"))
    corrected = {"file_name": "hall.mp4", "camera": "b", "captured_at": "2024-05-02T09:00:00", "site": "south"}
    write_metadata(place.parent, corrected)
    report = gallery.add(place.parent, footage=_looking(films[2]))
    assert differences(report) == {"moved": ["hall.mp4"], "corrected": ["hall.mp4"]} and report.videos == ()
    before = hits_by_path(gallery)
    gallery.add(place.parent, footage=_looking(films[2]), refresh=True)
    after = {hit.id: hit for hit in hits_by_path(gallery).values()}
    for hit in before.values():
        now = after[hit.id]
        assert (now.path, now.camera, now.attributes["site"], now.attributes["video"]) == (new, "b", "south", "hall.mp4")
        assert hit.captured_at is not None and now.captured_at is not None
        shift = datetime.fromisoformat(now.captured_at) - datetime.fromisoformat(hit.captured_at)
        assert shift.total_seconds() == 25 * 3600
        same = ("box_x", "box_y", "box_width", "box_height", "frame", "offset_seconds", "tracklet", "quality")
        assert all(now.attributes[name] == hit.attributes[name] for name in same)
    assert len(gallery.search("x", 9, "site = 'south' and video = 'hall.mp4'")) == 2
    assert differences(gallery.add(place.parent, footage=_looking(films[2]))) == {}


def test_people_who_were_forgotten_do_not_come_back_with_corrected_metadata(
    films: tuple[Path, Path, JsonDetector], tmp_path: Path
) -> None:
    place = tmp_path / "films" / "lobby.mp4"
    place.parent.mkdir()
    shutil.copy(films[0], place)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(place.parent, footage=_looking(films[2]))
    gone = next(iter(hits_by_path(gallery).values()))
    gallery.forget(ids=[gone.id])
    report = gallery.add(place.parent, footage=_looking(films[2], camera="gate"), refresh=True)
    assert differences(report) == {"corrected": ["lobby.mp4"]}
    (kept,) = hits_by_path(gallery).values()
    assert kept.camera == "gate" and kept.id != gone.id


def test_photographs_of_scenes_that_were_replaced_moved_and_corrected(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    first, truth = still([Walker(3, 100, 0), Walker(4, 300, 0, tall=120)])
    second, _ = still([Walker(8, 100, 0), Walker(9, 300, 0, tall=120)])
    detector = JsonDetector(write_detections(tmp_path / "d.json", "scene.png", [truth]))
    footage = _looking(detector, photographs=True)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    first.save(photos / "scene.png")
    gallery.add(photos, footage=footage)
    of_first = hits_by_path(gallery)
    for picture in (second, first, second):
        picture.save(photos / "scene.png")
        before = hits_by_path(gallery)
        assert differences(gallery.add(photos, footage=footage)) == {"changed": ["scene.png"]} and hits_by_path(gallery) == before
        report = gallery.add(photos, footage=footage, refresh=True)
        assert (report.added, report.erased, len(gallery)) == (2, 2, 2)
        fresh = Gallery.open(tmp_path / f"fresh-{os.urandom(4).hex()}", ColourEncoder())
        fresh.add(photos, footage=footage)
        assert hits_by_path(gallery) == hits_by_path(fresh) and (hits_by_path(gallery) == of_first) == (picture is first)
        assert differences(gallery.add(photos, footage=footage)) == {}
    (photos / "scene.png").rename(photos / "renamed.png")
    write_metadata(photos, {"file_name": "renamed.png", "camera": "hall", "floor": 2})
    report = gallery.add(photos, footage=footage, refresh=True)
    assert differences(report) == {"moved": ["renamed.png"], "corrected": ["renamed.png"]}
    hits = gallery.search("x", 9, "camera = 'hall' and floor = 2 and box_height > 0")
    assert {hit.source for hit in hits} == {"renamed.png"} and len(hits) == 2
    assert differences(gallery.add(photos, footage=footage)) == {}


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_a_scene_that_was_renamed_inside_its_archive_has_moved(ending: str, tmp_path: Path) -> None:
    scene, truth = still([Walker(3, 100, 0), Walker(4, 300, 0, tall=120)])
    scene.save(tmp_path / "scene.png")
    archive = tmp_path / "photos" / f"all{ending}"
    archive.parent.mkdir()

    def pack(name: str) -> None:
        if ending == ".zip":
            with zipfile.ZipFile(archive, "w") as packed:
                packed.write(tmp_path / "scene.png", name)
        else:
            with tarfile.open(archive, "w") as tar:
                tar.add(tmp_path / "scene.png", name)

    pack("scene.png")
    footage = _looking(JsonDetector(write_detections(tmp_path / "d.json", f"all{ending}/scene.png", [truth])), photographs=True)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    assert gallery.add(archive.parent, footage=footage).added == 2
    pack("a/renamed.png")
    name = f"all{ending}/a/renamed.png"
    assert differences(gallery.add(archive.parent, footage=footage)) == {"moved": [name]}
    assert differences(gallery.add(archive.parent, footage=footage, refresh=True)) == {"moved": [name]}
    assert [hit.source for hit in gallery.search("x", 9)] == [name, name]
    assert differences(gallery.add(archive.parent, footage=footage)) == {}


@pytest.mark.parametrize("copy", ["a-copy.png", "z-copy.png"])  # read before and after the file that was replaced
def test_rows_of_a_replaced_scene_move_to_its_copy(copy: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    first, truth = still([Walker(3, 100, 0), Walker(4, 300, 0, tall=120)])
    second, _ = still([Walker(8, 100, 0), Walker(9, 300, 0, tall=120)])
    footage = _looking(JsonDetector(write_detections(tmp_path / "d.json", "scene.png", [truth])), photographs=True)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    first.save(photos / "scene.png")
    gallery.add(photos, footage=footage)
    of_first = {hit.id for hit in gallery.search("x", 9)}
    shutil.copy(photos / "scene.png", photos / copy)
    second.save(photos / "scene.png")
    for refresh in (False, True):
        report = gallery.add(photos, footage=footage, refresh=refresh)
        assert differences(report) == {"changed": ["scene.png"], "moved": [copy]}
    sources = {hit.id: hit.source for hit in gallery.search("x", 9)}
    assert len(sources) == 4 and {sources[each] for each in of_first} == {copy}
    assert sorted(sources.values()) == sorted([copy, copy, "scene.png", "scene.png"])
    assert differences(gallery.add(photos, footage=footage)) == {}
