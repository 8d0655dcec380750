"""`tbps doctor` reports what is missing, even if torch cannot be imported."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tbps.cli import console

Doctor = Callable[..., tuple[int, str]]


@pytest.fixture
def doctor(run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Function that runs `tbps doctor`; returns exit code and standard output."""
    monkeypatch.setattr(console.output, "width", 300)
    return lambda *arguments: run("doctor", *arguments)[:2]


def test_a_complete_installation_is_reported(doctor: Doctor, tiny_model_folder: Path, tmp_path: Path) -> None:
    code, out = doctor("--model", tiny_model_folder, "--folder", tmp_path / "not [red]yet")
    assert code == 0 and "nothing is missing" in out
    assert "32x32 pixels, 77 tokens, 16 dimensions" in out and f"free at {tmp_path}" in out


def test_a_model_that_does_not_open_is_missing(doctor: Doctor, tmp_path: Path) -> None:
    code, out = doctor("--model", tmp_path / "no [red]model")
    assert code == 2 and out.splitlines()[-1].startswith("missing: model folder")
    assert "no [red]model" in out


def test_without_torch_the_rest_is_still_reported(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # makes `import torch` raise ImportError
    code, out = doctor()
    assert code == 2
    assert "unknown: torch does not import" in out and "GiB free" in out
    assert out.splitlines()[-1].startswith("missing: a working torch")
