"""Runs share decoded images; they can be listed and erased."""

from pathlib import Path

from typer.testing import CliRunner

from tbps.cli import app
from tbps.data.readers.folder import read
from tbps.model.bundle import load
from tbps.study.recipes import simplified_tbps_clip
from tbps.training.observer import StepReport
from tbps.training.state import EpochResult
from tbps.training.trainer import train


class Counting:
    def __init__(self) -> None:
        self.decoded = 0

    def on_cache(self, done: int, total: int) -> None:
        self.decoded += 1

    def on_step(self, report: StepReport) -> None: ...
    def on_epoch(self, result: EpochResult) -> None: ...


def test_a_second_run_decodes_nothing_and_the_images_can_be_erased(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    settings, data, cache = simplified_tbps_clip().override({"image": {}, "batch_size": 16}), read(flags), tmp_path / "cache"
    decoded = []
    for out in ("one", "two"):
        counting = Counting()
        train(settings, load(tiny_model_folder), data, tmp_path / out, counting, lambda: True, cache=cache)
        decoded.append(counting.decoded)
        assert not list((tmp_path / out).rglob("*.npy"))
    assert decoded[0] == 3 and decoded[1] == 0  # one report per split
    assert cache.stat().st_mode & 0o077 == 0
    listed = CliRunner().invoke(app, ["data", "cache", "--cache", str(cache)])
    assert listed.stdout.count(".npy") == 3
    erased = CliRunner().invoke(app, ["data", "cache", "--cache", str(cache), "--erase"])
    assert erased.exit_code == 0 and "MiB removed" in erased.stdout
    assert not list(cache.iterdir())
