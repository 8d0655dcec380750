"""A dry run counts the updates of the whole data set, measures real ones, and writes no files."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tbps.cli import app
from tbps.study.recipes import RECIPES, recipe


def test_a_dry_run_prints_the_settings_and_the_cost(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["train", "tbps_clip", "--data", "folder", "--root", str(flags), "--model", str(tiny_model_folder), "--out", str(out)]
    settings = ["batch_size=16", "schedule.epochs=4", "losses.ss.weight=0.3", "micro_batch=8"]
    done = CliRunner().invoke(app, [*command, "--dry-run", *(part for text in settings for part in ("--set", text))])
    assert done.exit_code == 0, done.output
    assert '"micro_batch": 8' in done.stdout and '"weight": 0.3' in done.stdout
    assert "12 updates, 3 per epoch" in done.stdout  # 48 pairs in batches of 16, four epochs
    assert "peak memory" in done.stdout and "parameters are trained" in done.stdout
    assert not out.exists()


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_rehearsed(name: str, flags: Path, tiny_model_folder: Path) -> None:
    start = [] if recipe(name).shape else ["--model", str(tiny_model_folder)]
    command = ["train", name, "--data", "folder", "--root", str(flags), *start, "--dry-run", "--set", "batch_size=8"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert f"{6 * recipe(name).schedule.epochs} updates, 6 per epoch" in done.stdout
