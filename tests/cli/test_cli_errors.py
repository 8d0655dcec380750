"""Errors are one line on standard error and exit code 2; --debug adds the traceback."""

import sys
from pathlib import Path

import pytest

from tbps.cli import main


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tbps", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nowhere", "--data", "folder", "--root", "{tmp}"], "metadata"),
        (["evaluate"], "--embeddings"),
        (["evaluate", "--embeddings", "{tmp}/none.safetensors"], "tbps embed"),
        (["train", "tbps_klip", "--data", "folder", "--root", "{tmp}", "--out", "{tmp}/run"], "simplified_tbps_clip"),
        (
            ["train", "mannequin_tiny", "--data", "folder", "--root", "{tmp}", "--out", "{tmp}/run", "--set", "schedule.epoch=3"],
            "schedule.epochs",
        ),
        (["train", "mannequin_tiny", "--data", "folder", "--root", "{tmp}", "--out", "{tmp}/run", "--set", "seed"], "no '='"),
        (["search", "{tmp}/none", "a woman"], "tbps index"),
        (["data", "check", "folder", "{tmp}"], "metadata"),
        (["data", "check", "cuhk", "{tmp}"], "cuhk-pedes"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert call(monkeypatch, *(part.replace("{tmp}", str(tmp_path)) for part in arguments)) == 2
    written = capfd.readouterr().err.strip()
    assert written.startswith("error: ") and len(written.splitlines()) == 1
    assert message in written


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call(monkeypatch, "--debug", "evaluate", "--embeddings", str(tmp_path / "none")) == 2
    assert "Traceback" in capfd.readouterr().err
