"""Runs, steps and settings of version 0.1 behave as in that version: settings that were added later get the values that describe
its behaviour.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from tbps.config import Settings
from tbps.data.readers.folder import read
from tbps.errors import CheckpointError, SettingsError
from tbps.study.recipes import FORMER, RECIPES, recipe, tbps_clip
from tbps.study.work.kinds import parse_work
from tbps.study.work.training import Training
from tbps.training.observer import Silent
from tbps.training.run_folder import holds, unknown_then
from tbps.training.settings import TrainSettings
from tbps.training.start import start_model
from tbps.training.trainer import train

# Printed by version 0.1: `recipe(name).fingerprint()`.
FINGERPRINTS = {
    "clip": "1118798e5023a054",
    "clip_star": "c442f4f52ea51a56",
    "tbps_clip": "3f15b24ccdac1bec",
    "simplified_tbps_clip": "76e6c50c2b41f7cd",
    "distilled": "b5aae35a567d5c1f",
    "irra": "ad8d2a4b01c2b24a",
    "coop": "772d423f27ce7c8c",
    "clip_adapter": "e53cbd89015913c2",
    "mannequin_start": "1f850f60745a5250",
    "mannequin_tiny": "97afae799bdb7d6b",
    "mannequin_minute": "8bdf773ac17c108b",
}


def as_written_then(settings: Settings) -> dict[str, Any]:
    """The JSON that version 0.1 would have written, without settings that were added later."""
    dump: dict[str, Any] = settings.model_dump(mode="json")
    for name, value in settings:
        if name in settings.earlier:
            del dump[name]
        elif isinstance(value, Settings):
            dump[name] = as_written_then(value)
    return dump


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_without_later_settings_have_the_fingerprints_of_version_0_1(name: str) -> None:
    now = FORMER[name]() if name in FORMER else recipe(name)
    then = now.as_earlier(as_written_then(now))
    assert then.fingerprint() == FINGERPRINTS[name]
    assert TrainSettings.parse_stored(as_written_then(now)) == then
    assert now.fingerprint() != then.fingerprint(), "current settings have another fingerprint"
    assert TrainSettings.parse_stored(now.model_dump(mode="json")) == now, "current files are read unchanged"


def test_later_settings_have_the_values_of_version_0_1() -> None:
    then = TrainSettings.parse_stored(as_written_then(tbps_clip()))
    assert then.strong_views.source == "squashed" and then.image.training_resize == "bicubic"
    assert then.image_augmentation.boxes == "torchvision" and then.image_augmentation.order == "fixed"
    assert then.losses.mlm.padding == "batch" and then.losses.shards == 1 and then.learn_from == "train"
    assert then.optimizer.algorithm == "adamw" and then.optimizer.groups == "tbps"


def test_a_step_that_version_0_1_wrote_is_the_same_step() -> None:
    work = Training(train=tbps_clip())
    values = work.model_dump(mode="json") | {"train": as_written_then(work.train)}
    assert parse_work(values).train.strong_views.source == "squashed"
    assert parse_work(work.model_dump(mode="json")) == work


CHANGES: Mapping[str, Any] = {
    "image": {},
    "batch_size": 16,
    "schedule.epochs": 2,
    "schedule.peak_rate": 1e-3,
    "losses.ss.weight": 0.4,
    "strong_views.blur_probability": 0,
    "checkpoint_steps": 1,
}


def stop_after(updates: int) -> Any:
    asked = iter(range(10**6))
    return lambda: next(asked) + 1 >= updates


def test_a_run_of_version_0_1_is_resumed_as_it_was_begun(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    """Changes a stopped run to the files of version 0.1 and resumes it with the current recipe: the result is the same."""
    asked = recipe("simplified_tbps_clip").override(CHANGES)
    old = asked.as_earlier(as_written_then(asked))
    data = read(flags)

    def run(settings: TrainSettings, folder: Path, stop: Any = lambda: False) -> Any:
        return train(
            settings, start_model(settings, data, tiny_model_folder, "cpu"), data, folder, Silent(), stop, cache=tmp_path / "c"
        )

    whole = run(old, tmp_path / "whole")
    run(old, tmp_path / "torn", stop_after(2))
    file = tmp_path / "torn" / "settings.json"
    file.write_text(json.dumps(as_written_then(old), indent=2) + "\n")
    newest = sorted((tmp_path / "torn" / "checkpoints").glob("*"))[-1]
    with safe_open(newest, framework="pt") as stored:
        assert stored.metadata()["settings"] == old.fingerprint()

    assert asked != old and holds(tmp_path / "torn", asked)
    assert "strong_views.source=squashed" in unknown_then(tmp_path / "torn", asked)
    resumed = run(asked, tmp_path / "torn")
    assert resumed.finished and resumed.step == whole.step
    ends = [load_file(sorted((tmp_path / name / "checkpoints").glob("*"))[-1]) for name in ("whole", "torn")]
    assert all((ends[0][name] == ends[1][name]).all() for name in ends[0])
    assert json.loads(file.read_text())["strong_views"]["source"] == "squashed", "the file now holds the setting"
    assert holds(tmp_path / "torn", old) and not holds(tmp_path / "torn", asked)


def test_the_error_for_other_settings_names_the_first_difference(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    settings = recipe("clip").override(CHANGES | {"losses.ss.weight": 0})
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(as_written_then(settings)))
    data = read(flags)
    model = start_model(settings, data, tiny_model_folder, "cpu")
    other = settings.override({"schedule.peak_rate": 2e-3})
    with pytest.raises(SettingsError, match=r"schedule\.peak_rate is 0\.001 there and 0\.002 here"):
        train(other, model, data, folder, Silent(), cache=tmp_path / "c")
    assert not holds(folder, other) and holds(folder, settings)
    (folder / "settings.json").write_text("{torn")
    with pytest.raises(CheckpointError, match=r"settings\.json is damaged"):
        train(settings, model, data, folder, Silent(), cache=tmp_path / "c")


def test_the_fingerprint_depends_on_every_new_setting() -> None:
    asked = recipe("tbps_clip")
    for key, value in (("strong_views.source", "squashed"), ("image.training_resize", "bicubic"), ("losses.shards", 2)):
        assert asked.override({key: value}).fingerprint() != asked.fingerprint()
