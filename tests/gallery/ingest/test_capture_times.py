"""Capture times in EXIF data fill `captured_at`, and remarks say how a picture was read."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tbps.gallery.gallery import Gallery
from tbps.gallery.ingest.footage import Footage, FootageSettings
from tbps.gallery.ingest.reading import UNREAD_TIME
from tbps.gallery.store.layout import manifest_at, replace_head, table_of
from tbps.gallery.store.manifest import MANIFEST_FILE
from tbps.video.detectors.ready_made import JsonDetector
from tests.support.colour_encoder import ColourEncoder
from tests.support.walkers import Walker, still, write_detections


def _write(path: Path, taken: str | None, zone: str | None = None, seed: int = 0, size: tuple[int, int] = (16, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1  # without a tag of its own, Pillow drops the nested EXIF directory from a PNG
    details = exif.get_ifd(ExifTags.IFD.Exif)
    if taken is not None:
        details[ExifTags.Base.DateTimeOriginal] = taken
    if zone is not None:
        details[ExifTags.Base.OffsetTimeOriginal] = zone
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)


def _times(gallery: Gallery) -> dict[str, str | None]:
    return {hit.source: hit.captured_at for hit in gallery.search("x", 99)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    _write(folder / "zone.jpg", "2024:05:01 10:00:00", "+02:00", 1)
    _write(folder / "plain.png", "2024:05:01 10:00:00", None, 2)
    _write(folder / "wrong.webp", "0000:00:00 00:00:00", None, 3)
    _write(folder / "none.jpg", None, None, 4)
    return folder


EXPECTED = {"zone.jpg": "2024-05-01T08:00:00", "plain.png": "2024-05-01T10:00:00", "wrong.webp": None, "none.jpg": None}


def test_exif_capture_times_are_stored_and_the_next_run_reports_no_correction(photos: Path, tmp_path: Path) -> None:
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(photos)
    assert report.remarks == (("wrong.webp", UNREAD_TIME),)
    assert _times(gallery) == EXPECTED
    assert [hit.source for hit in gallery.search("x", 9, "captured_at < '2024-05-01T09:00'")] == ["zone.jpg"]
    for refresh in (False, True):
        again = gallery.add(photos, refresh=refresh)
        assert (again.skipped_existing, again.corrected, again.duplicates) == (4, (), ())
    assert _times(gallery) == EXPECTED


def test_a_time_in_the_metadata_takes_precedence_over_exif(photos: Path, tmp_path: Path) -> None:
    lines = [
        {"file_name": "zone.jpg", "captured_at": "2020-01-01"},
        {"file_name": "plain.png", "camera": "a"},
        {"file_name": "wrong.webp"},
    ]
    (photos / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(photos)
    expected = {"zone.jpg": "2020-01-01T00:00:00", "plain.png": EXPECTED["plain.png"], "wrong.webp": None}
    assert _times(gallery) == expected
    assert gallery.add(photos).corrected == ()
    lines[0].pop("captured_at")
    (photos / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert gallery.add(photos, refresh=True).corrected == (("zone.jpg", "was indexed with other metadata (captured_at)"),)
    assert _times(gallery) == expected | {"zone.jpg": EXPECTED["zone.jpg"]}


def test_refresh_adds_exif_capture_times_to_a_gallery_of_version_0_1(photos: Path, tmp_path: Path) -> None:
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(photos)
    head = gallery.path / MANIFEST_FILE
    table = table_of(head)
    assert table is not None
    # Version 0.1 read no EXIF data.
    ids = [row["id"] for batch in table.batches(["id"]) for row in batch.to_pylist()]
    table.copy_changed(set(), {each: {"captured_at": None} for each in ids}, "images-9")
    replace_head(head, manifest_at(head).model_copy(update={"table": "images-9"}))
    assert set(_times(gallery).values()) == {None}
    report = gallery.add(photos)
    assert sorted(name for name, _ in report.corrected) == ["plain.png", "zone.jpg"] and set(_times(gallery).values()) == {None}
    gallery.add(photos, refresh=True)
    assert _times(gallery) == EXPECTED


def test_people_in_a_photograph_have_its_capture_time(tmp_path: Path) -> None:
    scene, truth = still([Walker(3, 100, 0)])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:05:01 10:00:00"
    (tmp_path / "photos").mkdir()
    scene.save(tmp_path / "photos" / "scene.png", exif=exif)
    detector = JsonDetector(write_detections(tmp_path / "d.json", "scene.png", [truth]))
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    for _ in range(2):
        report = gallery.add(tmp_path / "photos", footage=Footage(FootageSettings(photographs=True), detector))
        assert _times(gallery) == {"scene.png": "2024-05-01T10:00:00"} and report.corrected == ()


def test_remarks_on_deep_colour_and_animations_are_made_once(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    grey = np.linspace(0, 255, 16 * 32).reshape(32, 16).astype(np.uint16)
    Image.fromarray(grey << 4).save(photos / "deep.png")
    Image.fromarray(grey.astype(np.uint8)).save(photos / "grey.png")
    frames = [Image.new("RGB", (16, 32), colour) for colour in ("red", "blue")]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(photos)
    assert report.remarks == (
        ("deep.png", "12-bit values in a 16-bit file were scaled to the whole range"),
        ("moving.gif", "is animated; its first frame is taken"),
    )
    first, second = gallery.search_image(photos / "grey.png", 2)
    assert {first.source, second.source} == {"deep.png", "grey.png"} and first.score == second.score == pytest.approx(1)
    with Image.open(io.BytesIO(gallery.search_image(photos / "deep.png", 1)[0].thumbnail)) as thumbnail:
        assert np.asarray(thumbnail).max() > 250
    assert gallery.add(photos).remarks == ()
