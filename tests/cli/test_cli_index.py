"""`tbps index`."""

import json
import os
import re
import shutil
import signal
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from PIL import Image

import tbps
from tbps.gallery.store.manifest import recorded

PEOPLE = Path(__file__).parents[1] / "people"
Run = Callable[..., tuple[int, str, str]]


def test_photographs_are_indexed_once(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "gallery"
    code, out, _ = run("index", PEOPLE, "--gallery", gallery, "--model", tiny_model_folder)
    assert code == 0
    assert re.match(r"4 added in [\d.]+ s \(\d+ per second\), 0 already there, 0 failed; gallery \S+ holds 4 images\n", out)
    assert recorded(gallery).encoder_location == str(tiny_model_folder)
    code, out, _ = run("index", PEOPLE, "--gallery", gallery)
    assert code == 0
    assert re.match(r"0 added in [\d.]+ s, 4 already there, 0 failed", out)


def test_failed_files_are_listed_and_reported(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(PEOPLE, photos)
    (photos / "bad [red].jpg").write_text("text")
    shutil.copy(photos / "person_1.jpg", photos / "twin.jpg")
    report = tmp_path / "report.json"
    code, out, err = run(
        "index", photos, "--gallery", tmp_path / "g", "--model", tiny_model_folder, "--batch-size", 2, "--report", report
    )
    assert code == 0 and "4 added" in out and "1 already there, 1 failed" in out
    assert "failed: bad [red].jpg: is not a readable JPEG" in err
    assert "duplicate: twin.jpg: has the same content as person_1.jpg" in err
    written = json.loads(report.read_text())
    assert (written["added"], written["skipped_existing"]) == (4, 1)
    assert written["failed"][0][0] == "bad [red].jpg"


def test_control_characters_in_names_are_escaped(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(PEOPLE / "person_1.jpg", photos)
    (photos / "bad\x1b[2J\nline.jpg").write_text("text")
    _, _, err = run("index", photos, "--gallery", tmp_path / "g", "--model", tiny_model_folder)
    assert "\x1b[2J" not in err
    assert "failed: bad\\x1b[2J\\nline.jpg: is not a readable" in err


@pytest.mark.parametrize("remembered", [True, False])
def test_the_model_comes_from_the_environment_or_an_error_says_how(
    remembered: bool, run: Run, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if remembered:
        monkeypatch.setenv("TBPS_MODEL", str(tiny_model_folder))
    code, out, err = run("index", PEOPLE, "--gallery", tmp_path / "gallery")
    if remembered:
        assert code == 0 and "4 added" in out
    else:
        assert code == 2 and err.startswith("error: no model: give --model FOLDER_OR_ID or set TBPS_MODEL")
        assert not (tmp_path / "gallery").exists()


def test_errors_are_one_line_and_exit_code_2(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_text("text")
    shutil.copytree(PEOPLE, tmp_path / "photos")
    for folder, expected in (
        ("empty", "holds no picture"),
        ("nowhere", "does not exist"),
        ("bad", "none of the 1 pictures of"),
    ):
        code, _, err = run("index", tmp_path / folder, "--gallery", tmp_path / "g", "--model", tiny_model_folder)
        last = err.strip().splitlines()[-1]
        assert code == 2 and last.startswith("error: ") and expected in last
    code, _, err = run("index", PEOPLE, "--gallery", tmp_path / "photos", "--model", tiny_model_folder)
    assert code == 2 and "is no gallery" in err and "holds 'person" not in err.replace("LICENSE", "")


def test_a_gallery_of_another_model_is_refused(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    assert run("index", PEOPLE, "--gallery", tmp_path / "g", "--model", tiny_model_folder)[0] == 0
    other = tmp_path / "other"
    shutil.copytree(tiny_model_folder, other)
    settings = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps(settings | {"image_mean": [0.5, 0.5, 0.5]}))
    code, _, err = run("index", PEOPLE, "--gallery", tmp_path / "g", "--model", other)
    assert code == 2
    assert str(tiny_model_folder) in err and str(other) in err and "into a new folder" in err


def _scenes(folder: Path) -> Path:
    folder.mkdir()
    for number, name in enumerate(sorted(PEOPLE.glob("*.jpg"))):
        shutil.copy(name, folder / f"{number}.jpg")
    return folder


def test_people_in_photographs_are_cut_out(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "g"
    options = ("--gallery", gallery, "--model", tiny_model_folder, "--detect", "--camera", "hall")
    code, out, _ = run("index", _scenes(tmp_path / "scenes"), *options)
    assert code == 0 and re.match(r"7 added .* 0 failed; gallery \S+ holds 7 images\n", out)
    code, out, _ = run("index", tmp_path / "scenes", *options)
    assert code == 0 and "0 added" in out and "4 already there" in out
    hits = tbps.Gallery.open(gallery, tbps.load(str(tiny_model_folder))).search("x", 9, "camera = 'hall' and box_height > 1000")
    assert {hit.source for hit in hits} == {"2.jpg", "3.jpg"}  # determined by looking at the pictures


def test_an_error_gives_advice_if_nobody_is_found(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text('{"images": [{"id": 1, "file_name": "other.jpg"}], "annotations": []}')
    options = ("--gallery", tmp_path / "g", "--model", tiny_model_folder, "--detect")
    code, _, err = run("index", PEOPLE, *options, "--detector", tmp_path / "d.json")
    assert code == 2 and "error: no person was found in" in err
    assert "has detections for 'other.jpg' and the like: file_name is the name below the indexed folder" in err
    code, _, err = run("index", PEOPLE, *options, "--min-height", 5000)
    assert code == 2 and "nobody: person_1.jpg: no person was found" in err
    assert "lower --min-height or --min-score, or give --detector MODEL.onnx" in err


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--every", "often", "--every 'often' is neither seconds such as 0.5 nor frames such as 12f"),
        ("--start", "monday", "--start 'monday' is not an ISO 8601 time such as 2024-05-01T08:30:00"),
        ("--detector", "yolo", "detector 'yolo' is neither 'hog' nor a .onnx or .json file"),
        ("--detector-layout", "yolo", "detector layout 'yolo' is none of yolox, yolov5, yolov8, yolov10, detr,"),
        ("--detector-layout", "yolox", "a detector layout (yolox) is for .onnx files; the detector is hog"),
        ("--follow", "gait", "setting 'follow' = 'gait'"),
    ],
)
def test_invalid_options_are_refused(option: str, value: str, expected: str, run: Run, tmp_path: Path) -> None:
    code, _, err = run("index", PEOPLE, "--gallery", tmp_path / "g", option, value)
    assert code == 2 and f"error: {expected}" in err
    assert not (tmp_path / "g").exists()


def test_several_folders_in_one_command(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for number in (1, 2):
            archive.write(PEOPLE / f"person_{number}.jpg", f"{number}.jpg")
    (tmp_path / "folder").mkdir()
    shutil.copy(PEOPLE / "person_3.jpg", tmp_path / "folder")
    places = (tmp_path / "two.zip", tmp_path / "folder", PEOPLE / "person_4.jpg", tmp_path / "nothing.mp4")
    code, out, err = run("index", *places, "--gallery", tmp_path / "g", "--model", tiny_model_folder)
    assert code == 0 and "4 added" in out and "1 failed" in out
    assert "failed: nothing.mp4: there is no such file" in err


def test_control_c_reports_what_is_kept(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(600):
        Image.new("RGB", (16, 32), (number % 256, number // 256, 90)).save(photos / f"{number}.png")
    command = ("index", photos, "--gallery", tmp_path / "g", "--model", tiny_model_folder, "--batch-size", 8)

    def press() -> None:
        while not (tmp_path / "g" / "images.lance").exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore SIGINT
    pressing = threading.Thread(target=press)
    pressing.start()
    code, _, err = run(*command)
    pressing.join()
    signal.signal(signal.SIGINT, before)
    kept = re.search(r"interrupted: gallery \S+ holds (\d+) images; the same command adds what is missing", err)
    assert code == 130 and kept is not None and int(kept[1]) < 600
    code, out, _ = run(*command)
    assert code == 0 and f"{600 - int(kept[1])} added" in out and "holds 600 images" in out


def test_missing_frames_of_a_video_are_reported(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    """The video is a Matroska file that lacks at least five frames; a detection is for a frame after its end."""
    film, photos = tmp_path / "gate.mkv", [Image.open(path).resize((160, 240)) for path in sorted(PEOPLE.glob("*.jpg"))]
    with av.open(str(film), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 240, "yuv420p", 5
        for number in range(30):
            container.mux(stream.encode(av.VideoFrame.from_image(photos[number % 4])))
        container.mux(stream.encode(None))
    with av.open(str(film)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(film.read_bytes())
    for start, size in packets[12:17]:
        content[start : start + size] = bytes(size)
    film.write_bytes(content)
    tree = {
        "images": [{"id": frame, "file_name": "gate.mkv", "frame": frame} for frame in (0, 99)],
        "annotations": [{"image_id": frame, "bbox": [10, 10, 100, 200]} for frame in (0, 99)],
    }
    (tmp_path / "d.json").write_text(json.dumps(tree))
    options = ("--gallery", tmp_path / "g", "--model", tiny_model_folder, "--detector", tmp_path / "d.json")
    code, out, err = run("index", film, *options)
    assert code == 0 and "1 added" in out
    lost = re.search(r"note: gate\.mkv: (\d+) of about 30 frames could not be decoded", err)
    assert lost is not None and f"frames searched, {lost[1]} missing" in out and 5 <= int(lost[1]) <= 8
    assert "1 detection of gate.mkv not used, in frames after its end or that could not be decoded (99)" in err


def _phone(folder: Path) -> list[str]:
    """Writes ten files as a phone has them, six of them images in supported formats."""
    folder.mkdir()
    person = Image.open(PEOPLE / "person_1.jpg")
    for number, (name, file_format) in enumerate(
        {
            "1.JPG": "JPEG",
            "2.JPG": "JPEG",
            "old.jpe": "JPEG",
            "whatsapp.jfif": "JPEG",
            "6.avif": "AVIF",
            "sticker.gif": "GIF",
        }.items()
    ):
        person.rotate(number).save(folder / name, file_format)
    for name in ("3.HEIC", "4.HEIC", "5.HEIC"):
        (folder / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + name.encode() * 80)
    (folder / "7.DNG").write_bytes(b"II*\0" + bytes(300))
    return sorted(path.name for path in folder.iterdir())


def test_every_file_of_a_phone_is_indexed_or_listed(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    names = _phone(tmp_path / "phone")
    (tmp_path / "phone" / ".thumbnails").mkdir()
    (tmp_path / "phone" / "notes.txt").write_text("x")
    report = tmp_path / "report.json"
    code, out, err = run("index", tmp_path / "phone", "--gallery", tmp_path / "g", "--model", tiny_model_folder, "--report", report)
    assert code == 0 and out.startswith("6 added") and "4 failed" in out
    assert all(f"failed: {name}: " in err for name in ("3.HEIC", "4.HEIC", "5.HEIC", "7.DNG"))
    assert "failed: 7.DNG: is a raw photograph, which is not read; export it as JPEG" in err
    assert "note: pictures of formats that are not read: 1 .dng; save them as JPEG or PNG" in err
    left_out = (
        "files ending in .txt, which are not pictures (1, such as notes.txt); hidden files and folders (1, such as .thumbnails)"
    )
    assert f"note: left out: {left_out}" in err
    written = json.loads(report.read_text())
    assert written["added"] + len(written["failed"]) == len(names) == 10
    assert written["left_out"]["hidden files and folders"] == [1, ".thumbnails"]


def test_changed_files_are_listed_and_updated_with_refresh(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    photos, gallery = tmp_path / "photos", tmp_path / "g"
    shutil.copytree(PEOPLE, photos)
    (photos / "LICENSE").unlink()
    assert run("index", photos, "--gallery", gallery, "--model", tiny_model_folder)[0] == 0
    Image.open(photos / "person_1.jpg").rotate(90).save(photos / "person_1.jpg")
    (photos / "person_2.jpg").rename(photos / "renamed.jpg")
    (photos / "person_3.jpg").unlink()
    (photos / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{name}.jpg", "camera": "a"}}\n' for name in ("person_1", "renamed", "person_4"))
    )
    code, out, err = run("index", photos, "--gallery", gallery)
    assert code == 1 and "0 added" in out and "holds 4 images" in out
    assert "changed: person_1.jpg: has other content than when it was indexed" in err
    assert f"moved: renamed.jpg: was indexed as {photos}/person_2.jpg" in err
    assert "corrected: person_4.jpg: was indexed with other metadata (camera)" in err
    assert f"gone: person_3.jpg: is no longer in {photos}" in err
    counts = "1 changed, 1 moved, 2 corrected, 1 gone"
    assert f"note: files differ from the gallery: {counts}. It was not updated; to update it, run again with --refresh" in err
    assert f"tbps forget {gallery} --where \"source = 'person_3.jpg'\"" in err
    code, out, err = run("index", photos, "--gallery", gallery, "--refresh")
    assert code == 0 and "1 added" in out and f"refreshed: {counts}; 1 images of former content were removed" in out
    code, out, err = run("index", photos, "--gallery", gallery)
    assert code == 1 and "note: files differ from the gallery: 1 gone." in err and "changed: " not in err
    assert run("forget", gallery, "--where", "source = 'person_3.jpg'", "--yes")[0] == 0
    assert run("index", photos, "--gallery", gallery)[0] == 0


def test_excluded_files_are_skipped(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    arguments = ("index", PEOPLE, "--gallery", tmp_path / "g", "--model", tiny_model_folder)
    code, out, err = run(*arguments, "--exclude", "*_[12].jpg", "--exclude", "nothing")
    assert code == 0 and out.startswith("2 added")
    assert "files and folders by --exclude (2, such as person_1.jpg)" in err and "note: --exclude 'nothing' matched nothing" in err
    assert run(*arguments, "--exclude", "")[0] == 2
    _, text, _ = run("index", "--help")
    assert "--exclude" in text and "--refresh" in text and "EXIF" in text
