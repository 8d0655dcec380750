"""Indexing photographs of scenes and videos: rows and columns, resuming, the record of finished videos, errors."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tbps.errors import SettingsError
from tbps.gallery.gallery import Gallery
from tbps.gallery.ingest import commits
from tbps.gallery.ingest.footage import Footage, FootageSettings, parse_every
from tbps.gallery.ingest.record import Finished, Record
from tbps.gallery.store.hit import Hit
from tbps.gallery.store.layout import FOOTAGE_FILE
from tbps.video.detectors.protocol import Detection, Frame
from tbps.video.detectors.ready_made import JsonDetector
from tests.support.colour_encoder import ColourEncoder, write_pictures
from tests.support.walkers import Walker, film, still, write_detections, write_film

WALKERS = [Walker(3, 40, 200, 150, 270), Walker(4, 440, -60, 160, 285), Walker(7, 100, 0, 140, 300, range(15, 60))]
COUNT = 60  # the first walker leaves the picture after 22 frames, and its track ends after 43


@dataclass
class Counting:
    """A detector that counts its calls."""

    inner: JsonDetector
    asked: int = 0
    fingerprint: str = field(init=False)
    advice: str = "?"

    def __post_init__(self) -> None:
        self.fingerprint = self.inner.fingerprint

    def detect(self, frame: Frame) -> list[Detection]:
        self.asked += 1
        return self.inner.detect(frame)


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A video of three people, and its detections."""
    folder = tmp_path_factory.mktemp("filmed")
    frames, truth = film(WALKERS, COUNT)
    return write_film(folder / "lobby.mp4", frames), write_detections(folder / "lobby.json", "lobby.mp4", truth)


def _footage(detections: Path, **options: Any) -> Footage:
    settings = FootageSettings(**{"every_frames": 1, **options.pop("settings", {})})
    return Footage(settings, options.pop("detector", JsonDetector(detections)), **options)


def _rows(gallery: Gallery) -> dict[str, tuple[Any, ...]]:
    hits: Sequence[Hit] = gallery.search("someone", k=999)
    return {
        h.id: (round(h.score, 4), h.source, h.root, h.camera, h.captured_at, json.dumps(h.attributes, sort_keys=True), h.thumbnail)
        for h in hits
    }


def test_a_video_gives_rows_with_time_camera_box_and_tracklet(filmed: tuple[Path, Path], tmp_path: Path) -> None:
    video, detections = filmed
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(
        video, footage=_footage(detections, camera="lobby", start=datetime(2024, 5, 1, 8, 30), settings={"best_per_track": 2})
    )
    assert (report.added, report.failed, report.nobody) == (6, (), ())
    seen = report.videos[0]
    assert (seen.name, seen.frames, seen.looked_at, seen.broken, seen.tracklets, seen.crops) == ("lobby.mp4", COUNT, COUNT, 0, 3, 6)
    truth = json.loads(detections.read_text())
    boxes = {(entry["image_id"], *map(int, entry["bbox"])) for entry in truth["annotations"]}
    hits = gallery.search("x", 99)
    assert len({hit.attributes["tracklet"] for hit in hits}) == 3
    for hit in hits:
        row = hit.attributes
        assert (hit.source, hit.path, hit.camera, row["video"]) == ("lobby.mp4", video, "lobby", "lobby.mp4")
        assert (row["frame"], row["box_x"], row["box_y"], row["box_width"], row["box_height"]) in boxes
        assert row["offset_seconds"] == row["frame"] / 10 and 0 < row["quality"] <= 1
        assert hit.captured_at is not None
        assert datetime.fromisoformat(hit.captured_at).timestamp() - datetime(2024, 5, 1, 8, 30).timestamp() == pytest.approx(
            row["offset_seconds"]
        )
        with Image.open(io.BytesIO(hit.thumbnail)) as thumbnail:
            assert not thumbnail.getexif() and "exif" not in thumbnail.info
    assert gallery.search("x", 9, "offset_seconds < 9 and box_height > 100 and camera = 'lobby' and frame >= 0")
    assert sorted(path.name for path in (tmp_path / "gallery").iterdir()) == [".lock", FOOTAGE_FILE, "gallery.json", "images.lance"]


@pytest.mark.parametrize("stop", [1, 30, 50, 60])
def test_an_interrupted_and_resumed_run_gives_the_rows_of_an_uninterrupted_one(
    stop: int, filmed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, detections = filmed
    monkeypatch.setattr(commits, "COMMIT_ROWS", 1)
    whole = Gallery.open(tmp_path / "whole", ColourEncoder())
    whole.add(video, footage=_footage(detections), batch_size=1)

    def interrupt(name: str, done: int, total: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    with pytest.raises(KeyboardInterrupt):
        gallery.add(video, footage=_footage(detections, on_video=interrupt), batch_size=1)
    kept = _rows(gallery) if len(gallery) else {}
    assert kept.items() <= _rows(whole).items() and len(kept) == (3 if stop > 45 else 0)
    report = gallery.add(video, footage=_footage(detections), batch_size=1)
    assert (report.added, report.skipped_existing, report.duplicates) == (9 - len(kept), len(kept), ())
    assert _rows(gallery) == _rows(whole)


PROGRAM = """
import sys, time
from pathlib import Path
from tests.support.colour_encoder import ColourEncoder
from tbps.gallery.ingest import commits
from tbps.video.detectors.ready_made import JsonDetector
from tbps.gallery.ingest.footage import Footage, FootageSettings
from tbps.gallery.gallery import Gallery

def slow(name, done, total):
    print(done, flush=True)
    time.sleep(0.01)

commits.COMMIT_ROWS = 1
footage = Footage(FootageSettings(every_frames=1), JsonDetector(Path(sys.argv[3])), on_video=slow)
Gallery.open(sys.argv[1], ColourEncoder()).add(sys.argv[2], footage=footage, batch_size=1)
"""


def test_kill_9_in_the_middle_of_a_video_loses_nothing(filmed: tuple[Path, Path], tmp_path: Path) -> None:
    video, detections = filmed
    whole = Gallery.open(tmp_path / "whole", ColourEncoder())
    whole.add(video, footage=_footage(detections))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "gallery"), str(video), str(detections)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "50":
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait()
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(video, footage=_footage(detections))
    assert _rows(gallery) == _rows(whole)


def test_a_finished_video_is_not_decoded_again(filmed: tuple[Path, Path], tmp_path: Path) -> None:
    video, detections = filmed
    detector = Counting(JsonDetector(detections))
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(video, footage=_footage(detections, detector=detector))
    assert detector.asked == COUNT
    (tmp_path / "renamed.mp4").write_bytes(video.read_bytes())
    for again in (video, tmp_path / "renamed.mp4"):
        report = gallery.add(again, footage=_footage(detections, detector=detector))
        assert (report.added, report.skipped_existing, report.duplicates, detector.asked) == (0, 1, (), COUNT)
    report = gallery.add(video, footage=_footage(detections, detector=detector, camera="gate"))
    assert report.corrected == (("lobby.mp4", "was indexed with other metadata (camera)"),) and report.duplicates == ()
    assert detector.asked == COUNT
    gallery.add(video, footage=_footage(detections, detector=detector, settings={"every_frames": 2}))
    assert detector.asked == COUNT + COUNT // 2  # other settings: the video is searched again


def test_the_record_holds_digests_only_and_survives_an_incomplete_line(filmed: tuple[Path, Path], tmp_path: Path) -> None:
    video, detections = filmed
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(video, footage=_footage(detections, camera="a-secret-place", start=datetime(2024, 5, 1)))
    file = tmp_path / "gallery" / FOOTAGE_FILE
    content = file.read_text()
    assert not any(word in content for word in ("lobby", "secret", "2024", "mp4"))
    guess = {"camera": "a-secret-place", "start": datetime(2024, 5, 1)}
    record = Record(file)
    assert not any(record.differs(Finished(json.loads(line)[0], guess)) is False for line in content.splitlines() if line)
    with file.open("a") as torn:
        torn.write('["0123')
    Record(file).append({"key": {"camera": "x"}})
    again = Record(file)
    (key,) = (json.loads(line)[0] for line in content.splitlines() if line)
    assert key in record and key in again and "key" in again
    assert again.differs(Finished("key", {"camera": "y"})) and not again.differs(Finished("key", {"camera": "x"}))


def test_tracklets_of_two_videos_have_different_ids(filmed: tuple[Path, Path], tmp_path: Path) -> None:
    frames, truth = film([Walker(9, 100, 30)], 10)
    (tmp_path / "films").mkdir()
    write_film(tmp_path / "films" / "gate.mp4", frames)
    (tmp_path / "films" / "lobby.mp4").write_bytes(filmed[0].read_bytes())
    tree = json.loads(filmed[1].read_text())
    own = json.loads(write_detections(tmp_path / "own.json", "gate.mp4", truth).read_text())
    for image in own["images"]:
        tree["images"].append(image | {"id": f"gate-{image['id']}"})
    for entry in own["annotations"]:
        tree["annotations"].append(entry | {"image_id": f"gate-{entry['image_id']}"})
    (tmp_path / "both.json").write_text(json.dumps(tree))
    (tmp_path / "films" / "metadata.jsonl").write_text(
        '{"file_name": "gate.mp4", "camera": "gate", "captured_at": "2024-06-01T10:00:00", "site": "north"}\n'
    )
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(tmp_path / "films", footage=_footage(tmp_path / "both.json", camera="elsewhere"))
    assert report.added == 12 and len(report.videos) == 2
    hits = gallery.search("x", 99)
    assert len({hit.attributes["tracklet"] for hit in hits}) == 4
    gate = gallery.search(
        "x", 99, "site = 'north' and camera = 'gate' and captured_at between '2024-06-01 10:00' and '2024-06-01 10:01'"
    )
    assert {hit.source for hit in gate} == {"gate.mp4"} and len(gate) == 3
    assert {hit.camera for hit in hits if hit.source == "lobby.mp4"} == {"elsewhere"}


def test_people_can_be_followed_by_the_models_embeddings(filmed: tuple[Path, Path], tmp_path: Path) -> None:
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(filmed[0], footage=_footage(filmed[1], settings={"follow": "model"}))
    assert report.videos[0].tracklets == 3


def test_people_in_photographs_become_rows(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    scene, truth = still([Walker(3, 100, 0), Walker(4, 300, 0, tall=120)])
    empty, _ = still([])
    scene.save(photos / "scene.png")
    empty.save(photos / "empty.png")
    with tarfile.open(photos / "more.tar", "w") as tar:
        tar.add(photos / "scene.png", "inner.png")
    detections = write_detections(tmp_path / "d.json", "scene.png", [truth])
    detector = Counting(JsonDetector(detections))
    footage = _footage(detections, detector=detector, camera="hall", settings={"photographs": True})
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(photos, footage=footage)
    assert (report.added, report.failed) == (2, ())
    assert set(report.nobody) == {"empty.png", "more.tar/inner.png"}
    hits = gallery.search("x", 9)
    found = {tuple(hit.attributes[f"box_{side}"] for side in ("x", "y", "width", "height")) for hit in hits}
    assert found == {tuple(map(int, box)) for box in truth.values()}
    assert {hit.camera for hit in hits} == {"hall"} and {hit.source for hit in hits} == {"scene.png"}
    asked = detector.asked
    again = gallery.add(photos, footage=footage)
    assert (again.added, again.skipped_existing, again.nobody) == (0, 3, ()) and detector.asked == asked


def test_the_default_camera_is_set_where_metadata_name_none(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 2)
    lines = '{"file_name": "0000.jpg", "camera": "a"}\n{"file_name": "0001.jpg"}\n'
    (tmp_path / "photos" / "metadata.jsonl").write_text(lines)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(tmp_path / "photos", footage=Footage(camera="b"))
    assert {hit.source: hit.camera for hit in gallery.search("x")} == {"0000.jpg": "a", "0001.jpg": "b"}


def test_unreadable_videos_are_reported_and_the_rest_is_added(filmed: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "lobby.mp4").write_bytes(filmed[0].read_bytes())
    (folder / "bad.mp4").write_bytes(b"text" * 100)
    write_pictures(folder, 1)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(folder, footage=_footage(filmed[1]))
    assert report.added == 10
    assert [name for name, _ in report.failed] == ["bad.mp4"] and "cannot be opened as a video" in report.failed[0][1]


def test_one_start_for_several_videos_is_refused(filmed: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "films" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "films" / name).write_bytes(filmed[0].read_bytes())
    with pytest.raises(SettingsError, match=r"is that of one recording, but there are 2 videos \(a.mp4, ...\)"):
        Gallery.open(tmp_path / "gallery", ColourEncoder()).add(
            tmp_path / "films", footage=_footage(filmed[1], start=datetime(2024, 5, 1))
        )


@pytest.mark.parametrize(
    ("text", "expected"), [("0.5", {"every": 0.5}), ("2s", {"every": 2.0}), ("12f", {"every_frames": 12}), (" 1 ", {"every": 1.0})]
)
def test_parse_every(text: str, expected: dict[str, float]) -> None:
    assert parse_every(text) == expected


@pytest.mark.parametrize("text", ["0", "0f", "1.5f", "-1", "often", "", "1h", "nan"])
def test_parse_every_refuses_other_texts(text: str) -> None:
    with pytest.raises(SettingsError, match=r"neither seconds such as 0\.5 nor frames such as 12f"):
        parse_every(text)


def test_without_the_video_extra_pictures_are_added_and_the_report_names_it(filmed: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "films"
    write_pictures(folder, 2)
    (folder / "lobby.mp4").write_bytes(filmed[0].read_bytes())
    program = (
        "import sys; sys.modules['av'] = None\n"
        "from tests.support.colour_encoder import ColourEncoder; from tbps.gallery.gallery import Gallery\n"
        "report = Gallery.open(sys.argv[1], ColourEncoder()).add(sys.argv[2])\n"
        "print(report.added, report.failed)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", program, str(tmp_path / "gallery"), str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert (
        out.startswith("2 (('lobby.mp4'")
        and "reading videos needs av, which is not installed; run in the checkout of tbps: pip install -e '.[video]'" in out
    )


def test_on_video_is_called_as_frames_are_decoded(filmed: tuple[Path, Path], tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    footage = _footage(filmed[1], on_video=lambda *call: told.append(call))
    Gallery.open(tmp_path / "gallery", ColourEncoder()).add(filmed[0], footage=footage)
    assert told[0] == ("lobby.mp4", 0, COUNT) and told[-1] == ("lobby.mp4", COUNT, COUNT)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told) and np.ptp([total for *_, total in told]) == 0


def test_an_incomplete_video_is_reported_stored_and_searched_again(filmed: tuple[Path, Path], tmp_path: Path) -> None:
    """A video that is still being copied: the people found so far are stored, and the others once the file is complete."""
    frames, _ = film(WALKERS, COUNT)
    whole = write_film(tmp_path / "whole.mkv", frames)
    path = tmp_path / "films" / "lobby.mp4"  # the name in the detections file
    path.parent.mkdir()
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(path, footage=_footage(filmed[1]))
    (met,) = report.videos
    assert 20 < met.frames < 50 and met.missing > 10 and met.incomplete is not None and report.added > 0
    ((name, reason),) = report.failed
    assert name == "lobby.mp4" and reason.startswith("is incomplete: only ") and "what was found is kept" in reason
    assert not (tmp_path / "gallery" / FOOTAGE_FILE).exists()
    detector = Counting(JsonDetector(filmed[1]))
    again = gallery.add(path, footage=_footage(filmed[1], detector=detector))
    assert detector.asked == met.frames and (again.added, again.skipped_existing) == (0, report.added)
    path.write_bytes(whole.read_bytes())
    plain = gallery.add(path, footage=_footage(filmed[1], detector=detector))
    assert [name for name, _ in plain.changed] == ["lobby.mp4"] and (plain.added, plain.videos) == (0, ())
    done = gallery.add(path, footage=_footage(filmed[1], detector=detector), refresh=True)
    assert done.failed == () and done.videos[0].frames == COUNT and done.videos[0].incomplete is None
    assert (done.erased, len(gallery)) == (report.added, done.added)  # the new rows replace the former ones
    assert (tmp_path / "gallery" / FOOTAGE_FILE).exists()


def test_jumps_of_time_stamps_are_in_the_notes(tmp_path: Path) -> None:
    frames, truth = film([Walker(3, 100, 20)], 30)
    path = write_film(tmp_path / "gate.ts", frames)
    once = path.read_bytes()
    path.write_bytes(once + once)
    detections = write_detections(tmp_path / "d.json", "gate.ts", [*truth, *truth])
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(path, footage=_footage(detections, settings={"every_frames": None, "every": 0.5}))
    assert (report.videos[0].frames, report.videos[0].jumps, report.failed) == (60, 1, ())
    assert "gate.ts: its time stamps go back or far ahead in one place; time was counted on from there" in report.notes
    offsets = [hit.attributes["offset_seconds"] for hit in gallery.search("x", 99)]
    assert offsets and max(offsets) < 6


def test_frames_with_ready_made_detections_are_searched_in_addition_to_the_interval(tmp_path: Path) -> None:
    """The interval is one frame per second, and detections exist only for other frames."""
    frames, truth = film([Walker(3, 100, 20)], 30)
    path = write_film(tmp_path / "gate.mp4", frames)
    between = [boxes if number in (13, 17, 24) else {} for number, boxes in enumerate(truth)]
    detections = write_detections(tmp_path / "d.json", "gate.mp4", between)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(path, footage=_footage(detections, settings={"every_frames": None, "every": 1.0}))
    assert report.videos[0].looked_at == 6 and report.videos[0].detections == 3
    assert {hit.attributes["frame"] for hit in gallery.search("x", 9)} == {13, 17, 24}
    assert not report.notes


def test_unused_detections_are_in_the_notes(filmed: tuple[Path, Path], tmp_path: Path) -> None:
    scene, truth = still([Walker(3, 100, 0)])
    folder = tmp_path / "photos"
    folder.mkdir()
    scene.save(folder / "scene.png")
    (folder / "lobby.mp4").write_bytes(filmed[0].read_bytes())
    tree = json.loads(filmed[1].read_text())
    (box,) = truth.values()
    for number, (name, frame) in enumerate(
        [("lobby.mp4", 700), ("lobby.mp4", 701), ("scene.png", 0), ("scene.png", 4), ("gone.mp4", 3), ("sub/gone.jpg", 0)]
    ):
        tree["images"].append({"id": f"more-{number}", "file_name": name, "frame": frame})
        tree["annotations"].append({"image_id": f"more-{number}", "bbox": list(box), "category_id": 1})
    tree["images"].append({"id": "nobody", "file_name": "nobody.jpg"})
    file = tmp_path / "d.json"
    file.write_text(json.dumps(tree))
    detector = JsonDetector(file)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(folder, footage=_footage(file, detector=detector, settings={"photographs": True}))
    assert set(report.notes) == {
        f"{file}: 2 detections of lobby.mp4 not used, in frames after its end or that could not be decoded (700, 701)",
        f"{file}: 1 detection of scene.png not used: a photograph has frame 0 only",
        f"{file}: 2 detections of 2 names not used, since no file of that name was indexed, such as 'gone.mp4'; file_name is the "
        "name below the indexed folder",
    }
    again = gallery.add(folder, footage=_footage(file, settings={"photographs": True}))  # everything is indexed already
    assert [note for note in again.notes if "lobby" in note or "scene" in note] == []
    whole = Gallery.open(tmp_path / "whole", ColourEncoder()).add(folder, footage=_footage(file))
    assert f"{file}: 2 detections of scene.png not used: it was taken whole, without --detect" in whole.notes


@pytest.mark.parametrize("name", ["./a/café.jpg", "a\\café.jpg", "a/cafe\u0301.jpg"])
def test_file_names_in_detections_may_be_spelled_differently(name: str, tmp_path: Path) -> None:
    scene, truth = still([Walker(3, 100, 0)])
    (tmp_path / "photos" / "a").mkdir(parents=True)
    scene.save(tmp_path / "photos" / "a" / "café.jpg")
    detections = write_detections(tmp_path / "d.json", name, [truth])
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(tmp_path / "photos", footage=_footage(detections, settings={"photographs": True}))
    assert (report.added, report.notes) == (1, ())


def test_detections_for_a_picture_of_another_size_are_refused(tmp_path: Path) -> None:
    scene, truth = still([Walker(3, 100, 0)])
    (tmp_path / "photos").mkdir()
    scene.save(tmp_path / "photos" / "scene.png")
    file = write_detections(tmp_path / "d.json", "scene.png", [truth])
    tree = json.loads(file.read_text())
    for size, added in (((480, 320), 1), ((960, 640), 0), ((320, 480), 0)):
        tree["images"][0] |= {"width": size[0], "height": size[1]}
        file.write_text(json.dumps(tree))
        gallery = Gallery.open(tmp_path / f"gallery-{size[0]}-{added}", ColourEncoder())
        report = gallery.add(tmp_path / "photos", footage=_footage(file, settings={"photographs": True}))
        assert report.added == added
        if not added:
            assert f"gives scene.png (frame 0) the size {size[0]} x {size[1]}, but it is 480 x 320" in report.failed[0][1]
