"""Several reader threads give the result of one and see whole updates of the rows; metadata are parsed once per picture."""

import json
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from tbps.gallery.gallery import Gallery
from tbps.gallery.ingest import context, reading
from tbps.gallery.ingest.footage import Footage, FootageSettings
from tbps.gallery.ingest.known import Known
from tbps.gallery.ingest.record import Record
from tbps.gallery.ingest.sources.candidates import Candidate
from tbps.gallery.store.columns import RowMetadata
from tbps.gallery.store.table import KnownRow
from tbps.video.detectors.ready_made import JsonDetector
from tests.support.colour_encoder import ColourEncoder, write_pictures
from tests.support.walkers import Walker, still, write_detections


@pytest.fixture
def restless() -> Iterator[None]:
    """Makes the interpreter switch between threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def _rows(gallery: Gallery) -> dict[str, tuple[Any, ...]]:
    hits = gallery.search("someone", k=9999)
    return {h.id: (round(h.score, 4), h.source, h.root, h.camera, h.identity, json.dumps(h.attributes), h.thumbnail) for h in hits}


@pytest.mark.usefixtures("restless")
def test_many_threads_give_the_rows_and_the_report_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    pictures = write_pictures(photos / "a", 150)
    for copy, original in enumerate(pictures[::3]):  # a third of the pictures has two copies, one of them far from the original
        shutil.copy(original, photos / f"copy-{copy:03d}.jpg")
        shutil.copy(original, photos / "a" / f"{original.stem}-again.jpg")
    (photos / "a" / "damaged.jpg").write_bytes(b"text")
    files = sorted(path for path in photos.rglob("*.jpg"))
    lines = [
        {"file_name": file.relative_to(photos).as_posix(), "camera": f"c{n % 4}", "identity": n, "size": n / 2}
        for n, file in enumerate(files)
    ]
    (photos / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = []
    for threads in (1, 16):
        monkeypatch.setattr(reading, "READERS", threads)
        gallery = Gallery.open(tmp_path / f"gallery-{threads}", ColourEncoder())
        reports = [gallery.add(photos, batch_size=7), gallery.add(photos, batch_size=64)]
        assert [(r.added, r.skipped_existing, len(r.failed), len(r.duplicates)) for r in reports] == [
            (150, 100, 1, 100),
            (0, 250, 1, 100),
        ]
        results.append((_rows(gallery), [(r.failed, r.duplicates, r.notes, r.corrected) for r in reports]))
    assert results[0] == results[1]


@pytest.mark.usefixtures("restless")
def test_readers_see_all_rows_of_a_rewritten_table_or_none_of_them(tmp_path: Path) -> None:
    """An erasure by another process replaces the rows while reader threads look up paths."""
    place = json.dumps({"box_x": 1, "box_y": 1, "box_width": 1, "box_height": 1, "quality": 1})

    def rows(prefix: str) -> dict[str, KnownRow]:
        return {f"{prefix}{number}": KnownRow("/films", "a.mp4", None, "gate", None, place) for number in range(100)}

    known = Known(rows("a"), Record(tmp_path / "footage.jsonl"))
    video = Candidate("a.mp4", "/films", Path("/films/a.mp4"))
    seen: list[tuple[str, ...]] = []
    errors: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                seen.append(known.at_path(video, "f" * 64).former)
                known.held_as("a1", "gate", ("gate",))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(100):
        known.replace(rows("ba"[number % 2]))
    done.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert set(seen) <= {tuple(rows("a")), tuple(rows("b"))}


@pytest.mark.parametrize("again", [False, True])
def test_metadata_are_parsed_once_per_picture(again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    write_pictures(photos, 9)
    shutil.copy(photos / "0004.jpg", photos / "copy.jpg")
    lines = [{"file_name": path.name, "camera": "a", "hat": "red"} for path in sorted(photos.iterdir())]
    (photos / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    if again:
        gallery.add(photos)
    parsed: list[Mapping[str, Any]] = []
    parse = context.row_metadata

    def counting(columns: Mapping[str, Any], kinds: Any) -> RowMetadata:
        parsed.append(columns)
        return parse(columns, kinds)

    for module in [module for name, module in sys.modules.items() if name.startswith("tbps.gallery.ingest.")]:
        if getattr(module, "row_metadata", None) is parse:
            monkeypatch.setattr(module, "row_metadata", counting)
    report = gallery.add(photos)
    assert report.added + report.skipped_existing == len(parsed) == 10


def test_a_bad_value_is_reported_once_however_many_rows_have_it(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    scene, truth = still([Walker(3, 100, 0), Walker(4, 300, 0, tall=120)])
    scene.save(photos / "scene.png")
    line = {"file_name": "scene.png", "captured_at": "yesterday", "link": "rtsp://user:secret@host/1"}
    (photos / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    detector = JsonDetector(write_detections(tmp_path / "d.json", "scene.png", [truth]))
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(photos, footage=Footage(FootageSettings(photographs=True), detector))
    assert report.added == 2
    assert report.notes == (
        "column 'link': passwords in addresses were removed from 1 values",
        "captured_at: 1 values are not ISO 8601 times such as 2024-05-01T08:30:00; kept in attributes only",
    )
    assert all("secret" not in str(hit.attributes) for hit in gallery.search("x"))


def test_people_keep_the_capture_time_of_their_photograph_when_its_camera_is_corrected(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    scene, truth = still([Walker(3, 100, 0)])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:05:01 10:00:00"
    scene.save(photos / "scene.png", exif=exif)
    detector = JsonDetector(write_detections(tmp_path / "d.json", "scene.png", [truth]))
    footage = Footage(FootageSettings(photographs=True), detector)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    for camera in ("gate", "hall"):
        (photos / "metadata.jsonl").write_text(json.dumps({"file_name": "scene.png", "camera": camera}) + "\n")
        report = gallery.add(photos, footage=footage, refresh=True)
        (hit,) = gallery.search("x")
        assert (hit.camera, hit.captured_at) == (camera, "2024-05-01T10:00:00")
    assert report.corrected == (("scene.png", "was indexed with other metadata (camera)"),)


def test_a_picture_whose_own_metadata_have_a_box_can_be_corrected(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_pictures(photos, 1)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    for width in (40, 50):
        line = {"file_name": "0000.jpg", "box_width": width, "box_height": 90}
        (photos / "metadata.jsonl").write_text(json.dumps(line) + "\n")
        gallery.add(photos, refresh=True)
        assert [hit.attributes["box_width"] for hit in gallery.search("x")] == [width]
