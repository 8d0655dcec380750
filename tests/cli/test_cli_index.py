"""`tbps index` through the program's own entry."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tbps.cli import main
from tbps.search.manifest import recorded

PEOPLE = Path(__file__).parents[1] / "people"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `tbps` with arguments: exit code, standard output, standard error."""
    monkeypatch.delenv("TBPS_MODEL", raising=False)

    def run_it(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tbps", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_it


def test_photographs_are_indexed_and_known_the_next_time(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "gallery"
    code, out, _ = run("index", PEOPLE, "--gallery", gallery, "--model", tiny_model_folder)
    assert code == 0
    assert re.match(r"4 added in [\d.]+ s \(\d+ a second\), 0 already there, 0 failed; gallery \S+ holds 4 images\n", out)
    assert recorded(gallery).encoder_location == str(tiny_model_folder)
    code, out, _ = run("index", PEOPLE, "--gallery", gallery)
    assert code == 0
    assert re.match(r"0 added in [\d.]+ s, 4 already there, 0 failed", out)


def test_what_failed_is_told_and_reported(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
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


def test_names_cannot_drive_the_terminal(run: Run, tiny_model_folder: Path, tmp_path: Path) -> None:
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
