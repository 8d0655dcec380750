"""Commands remove passwords in addresses from output, reports, logs and stored data."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import tbps
from tbps.cli import app
from tbps.cli.console import log_warnings
from tbps.gallery.store.retention_rules import read_retention
from tbps.server import Keys, state_folder

Run = Callable[..., tuple[int, str, str]]
WORD = "s3cr3t"
ADDRESS = f"rtsp://admin:{WORD}@camera.invalid:554/stream"


@pytest.mark.parametrize(
    "arguments",
    [
        ["index", ADDRESS, "--gallery", "{tmp}/g"],
        ["index", "{tmp}", ADDRESS, "--gallery", "{tmp}/g"],
        ["index", "{tmp}", "--gallery", "{tmp}/g", "--metadata", ADDRESS],
        ["index", "{tmp}", "--gallery", ADDRESS, "--model", ADDRESS],
        ["index", "{tmp}", "--gallery", "{tmp}/g", "--detector", ADDRESS],
        ["index", "{tmp}", "--gallery", "{tmp}/g", "--every", ADDRESS],
        ["index", "{tmp}", "--gallery", "{tmp}/g", "--start", ADDRESS],
        ["index", "{tmp}", "--gallery", "{tmp}/g", "--batch-size", ADDRESS],
        ["gallery", "info", "{tmp}", ADDRESS],
        ["search", ADDRESS, "a woman"],
        ["--debug", "search", ADDRESS, "a woman"],
        [ADDRESS],
        [f"--{ADDRESS}"],
    ],
)
def test_the_command_line_prints_no_password(
    arguments: list[str], run: Run, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 40)).save(tmp_path / "a.png")
    given = [part.format(tmp=tmp_path) for part in arguments]
    if given[0] == "index" and "--model" not in given:
        given += ["--model", str(tiny_model_folder)]
    code, out, err = run(*given)
    assert code != 0 and err
    assert WORD not in out + err
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and WORD.encode() in path.read_bytes()]
    assert not kept


def test_an_unexpected_error_prints_its_traceback_without_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "fall-for-a-test"

    def fall() -> None:
        raise ValueError(ADDRESS)

    app.command(name)(fall)
    try:
        code, out, err = run(name)
    finally:
        app.registered_commands.pop()
    assert code == 1 and "Traceback" in err and "ValueError: rtsp://***@camera.invalid" in err
    assert WORD not in out + err


def test_a_gallery_stores_no_password(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    """Addresses with passwords are in the camera option, in metadata values and in a file name."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(2):
        Image.new("RGB", (20, 40), (number, 0, 0)).save(photos / f"{number}.png")
    lines = [{"file_name": "0.png", "from": f"https://h/x?id=3&token={WORD}"}, {"file_name": "1.png"}, {"file_name": ADDRESS}]
    (photos / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["index", photos, "--gallery", tmp_path / "g", "--model", tiny_model_folder, "--camera", ADDRESS]
    command += ["--report", tmp_path / "report.json"]
    code, out, err = run(*command)
    assert code == 0, err
    assert WORD not in out + err + (tmp_path / "report.json").read_text()
    assert "column 'camera': passwords in addresses were removed from 2 values" in err
    assert not [p for p in (tmp_path / "g").rglob("*") if p.is_file() and WORD.encode() in p.read_bytes()]
    gallery = tbps.Gallery.open(tmp_path / "g", tbps.load(tiny_model_folder))
    hits = {hit.source: hit for hit in gallery.search("x", 9)}
    assert {hit.camera for hit in hits.values()} == {"rtsp://***@camera.invalid:554/stream"}
    assert hits["0.png"].attributes["from"] == "https://h/x?id=3&token=***"


def test_a_camera_can_be_named_by_its_address_with_or_without_the_password(
    run: Run, tiny_model_folder: Path, tmp_path: Path
) -> None:
    """Gallery, keys and retention rules store the address without the password, and both forms name the same camera."""
    folder, shown = tmp_path / "g", "rtsp://***@camera.invalid:554/stream"
    Image.new("RGB", (20, 40)).save(tmp_path / "0.png")
    assert run("index", tmp_path / "0.png", "--gallery", folder, "--model", tiny_model_folder, "--camera", ADDRESS)[0] == 0
    for camera in (ADDRESS, shown):
        for filtered in (["--camera", camera], ["--is", f"camera={camera}"], ["--where", f"camera = '{camera}'"]):
            code, out, err = run("search", folder, "a man", "--json", *filtered)
            assert code == 0 and len(json.loads(out)[0]["hits"]) == 1, err
        assert "rtsp" not in run("gallery", "retention", folder, "--camera", camera, "--days", "30")[2]
    assert dict(read_retention(folder).cameras) == {shown: 30}
    code, _, err = run("keys", "add", folder, "desk", "--camera", ADDRESS)
    assert code == 0 and "no camera" not in err
    assert [key.cameras for key in Keys(state_folder(folder)).all()] == [(shown,)]
    assert run("gallery", "retention", folder, "--camera", ADDRESS, "--remove")[0] == 0 and not read_retention(folder).cameras
    for place in (folder, state_folder(folder)):
        assert not [file for file in place.rglob("*") if file.is_file() and WORD.encode() in file.read_bytes()]


def test_the_log_of_the_service_holds_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        log_warnings()
        try:
            raise ValueError(ADDRESS)
        except ValueError:
            logging.getLogger("tbps.server").exception("cannot read %s", ADDRESS)
    finally:
        root.handlers[:], root.level = before, level
    err = capsys.readouterr().err
    assert "ERROR tbps.server: cannot read rtsp://***@camera.invalid" in err and "ValueError: rtsp://***@" in err
    assert WORD not in err
