"""`tbps train` shows the settings of a recipe, and repeats a run from its settings.json."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tbps.study.recipes import recipe

Run = Callable[..., tuple[int, str, str]]

SMALL = (
    "image={}",
    "batch_size=16",
    "lock.patch_projection=false",
    "schedule.epochs=1",
    "losses.r_itc.weight=0",
    "text_augmentation.enabled=false",
)


def with_changes(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def test_every_setting_is_shown_with_its_value_in_the_recipe(run: Run) -> None:
    code, said, _ = run("train", "irra", "--show-settings", *with_changes("lora.rank=4"))
    assert code == 0
    lines = said.splitlines()
    assert "batch_size = 64  (int >= 1)" in lines, "the value of the recipe"
    assert lines[lines.index("batch_size = 64  (int >= 1)") + 1] == "    Pairs per update, over all processes."
    assert "lora.rank = 4  (int >= 1)" in lines
    assert any(line.startswith('image_augmentation.method = "irra"') for line in lines)


def test_settings_are_shown_as_json(run: Run) -> None:
    code, said, _ = run("train", "mannequin_start", "--show-settings", "--json")
    assert code == 0
    shown = {setting["name"]: setting for setting in json.loads(said)}
    assert shown["shape.image.width"]["default"] == "192"
    assert shown["precision"]["type"] == '"float32" or "tf32" or "bfloat16" or "float16"'


def test_a_run_can_be_repeated_from_its_settings(run: Run, flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    data = ["--data", "folder", "--root", flags, "--model", tiny_model_folder, "--device", "cpu"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("train", "simplified_tbps_clip", *data, "--out", first, *with_changes(*SMALL))[0] == 0
    assert run("train", "--settings", first / "settings.json", *data, "--out", second)[0] == 0
    for name in ("settings.json", "best/model.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_changes_apply_after_the_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(recipe("clip").model_dump_json())
    code, said, _ = run("train", "--settings", file, "--show-settings", "--json", *with_changes("seed=3"))
    shown = {setting["name"]: setting["default"] for setting in json.loads(said)}
    assert code == 0 and shown["seed"] == "3" and shown["losses.shards"] == "4"


def test_settings_of_version_0_1_can_be_read(run: Run, tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).parents[1] / "version_0_1" / "written.tar.xz") as archive:
        archive.extract("run/settings.json", tmp_path, filter="data")
    code, said, _ = run("train", "--settings", tmp_path / "run" / "settings.json", "--show-settings", "--json")
    shown = {setting["name"]: setting["default"] for setting in json.loads(said)}
    assert code == 0
    assert shown["image.training_resize"] == '"bicubic"', "how version 0.1 resized"
    assert shown["schedule.peak_rate"] == "0.002"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"losses": {"n_itc": {"wieght": 1}}}', "unknown setting 'losses.n_itc.wieght'; did you mean 'losses.n_itc.weight'?"),
        ('{"seed": "many"}', "setting 'seed' = 'many'"),
        ("[1]", "holds no settings"),
        ("{torn", "cannot be read as settings"),
        (None, "cannot be read as settings"),
    ],
)
def test_files_that_hold_no_settings_are_refused(run: Run, content: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    if content is not None:
        file.write_text(content)
    code, _, error = run("train", "--settings", file, "--show-settings")
    assert code == 2 and message in error and str(file) in error


@pytest.mark.parametrize("arguments", [("--show-settings",), ("clip", "--settings", "x", "--show-settings")])
def test_settings_come_from_a_recipe_or_from_a_file(run: Run, arguments: tuple[str, ...]) -> None:
    code, _, error = run("train", *arguments)
    assert code == 2 and "give either a recipe" in error


def test_training_needs_a_data_set(run: Run) -> None:
    code, _, error = run("train", "clip")
    assert code == 2 and "give its format with --data and its folder with --root" in error
