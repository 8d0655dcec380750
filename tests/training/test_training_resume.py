"""A run that is stopped, or killed at any moment, and resumed gives the same weights bit for bit as an uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tbps.data.readers.folder import read
from tbps.data.records import PersonDataset
from tbps.errors import DataError, SettingsError
from tbps.model.bundle import load
from tbps.study.recipes import simplified_tbps_clip
from tbps.training.log import read_log
from tbps.training.observer import StepReport
from tbps.training.run import Outcome
from tbps.training.settings import TrainSettings
from tbps.training.start import start_model
from tbps.training.state import EpochResult
from tbps.training.trainer import train


class Recorder:
    """Records the progress of a run."""

    def __init__(self) -> None:
        self.steps: list[StepReport] = []
        self.epochs: list[EpochResult] = []

    def on_cache(self, done: int, total: int) -> None:
        pass

    def on_division(self, done: int, total: int) -> None:
        pass

    def on_step(self, report: StepReport) -> None:
        self.steps.append(report)

    def on_epoch(self, result: EpochResult) -> None:
        self.epochs.append(result)


def quick(**changes: object) -> TrainSettings:
    base = {
        "image": {},
        "batch_size": 16,
        "lock.patch_projection": False,
        "schedule.epochs": 3,
        "schedule.peak_rate": 2e-3,
        "schedule.initial_rate": 1e-4,
        "losses.r_itc.labels": "normalised",
        "checkpoint_steps": 2,
    }
    return simplified_tbps_clip().override(base | changes)


def run(settings: TrainSettings, data: PersonDataset, model: Path | None, folder: Path, stop_after: int | None = None) -> Outcome:
    updates = 0

    def stop() -> bool:
        nonlocal updates
        updates += 1
        return stop_after is not None and updates >= stop_after

    return train(settings, start_model(settings, data, model, "cpu"), data, folder, Recorder(), stop)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    newest = sorted((folder / "checkpoints").glob("*.safetensors"))[-1]
    return load_file(newest)


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_times(file: Path) -> list[dict[str, float | str]]:
    return [{k: v for k, v in record.items() if k != "pairs_per_second"} for record in read_log(file)]


VARIANTS: dict[str, dict[str, object]] = {
    "plain": {},
    "muon": {"optimizer.matrices": "muon"},
    "full": {"losses.mvs.views": "image", "losses.ss.weight": 0.4, "losses.c_itc.weight": 0.1, "micro_batch": 6},
    "ema": {"ema_decay": 0.9, "losses.id.weight": 0.2},
    "division": {"division.enabled": True, "losses.tal.weight": 1, "losses.n_itc.weight": 0},
    "mlm": {"losses.mlm.weight": 0.5, "pair_augmentation.method": "mixgen", "pair_augmentation.probability": 0.5},
}


@pytest.fixture(scope="module")
def uninterrupted(
    flags: Path, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Outcome]]:
    """Function that returns the folder and outcome of an uninterrupted run of a variant."""

    @cache
    def ended(variant: str) -> tuple[Path, Outcome]:
        folder = tmp_path_factory.mktemp("whole")
        return folder, run(quick(**VARIANTS[variant]), read(flags), tiny_model_folder, folder)

    return ended


@pytest.mark.parametrize(
    ("stop_after", "variant"), [(1, "plain"), (2, "muon"), (3, "full"), (4, "ema"), (7, "mlm"), (5, "division"), (6, "division")]
)
def test_stopped_and_resumed_equals_uninterrupted(
    flags: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
    uninterrupted: Callable[[str], tuple[Path, Outcome]],
    stop_after: int,
    variant: str,
) -> None:
    data, settings = read(flags), quick(**VARIANTS[variant])
    folder, whole = uninterrupted(variant)
    part = run(settings, data, tiny_model_folder, tmp_path, stop_after)
    assert not part.finished and part.step == stop_after
    resumed = run(settings, data, tiny_model_folder, tmp_path)
    assert resumed.finished and resumed.best == whole.best and resumed.standing == whole.standing
    assert same_bits(weights(folder), weights(tmp_path))
    assert without_times(folder / "log.jsonl") == without_times(tmp_path / "log.jsonl")


def test_a_division_after_the_last_checkpoint_is_repeated(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    """The run is killed after the first update of the second epoch, which began with a division; the last checkpoint is older."""
    data, settings = read(flags), quick(checkpoint_steps=100, **VARIANTS["division"])
    whole = run(settings, data, tiny_model_folder, tmp_path / "whole")
    updates = 0

    def killed() -> bool:
        nonlocal updates
        updates += 1
        if updates == 4:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train(settings, start_model(settings, data, tiny_model_folder, "cpu"), data, tmp_path / "parts", Recorder(), killed)
    assert read_log(tmp_path / "parts" / "log.jsonl")[-1]["kind"] == "division"
    assert run(settings, data, tiny_model_folder, tmp_path / "parts").standing == whole.standing
    assert same_bits(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert without_times(tmp_path / "whole" / "log.jsonl") == without_times(tmp_path / "parts" / "log.jsonl")


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tbps.cli", "train", "simplified_tbps_clip", "--data", "folder", "--root", str(flags)]
    command += ["--model", str(tiny_model_folder), "--resume"]
    for assignment in ("batch_size=16", "schedule.epochs=40", "checkpoint_steps=5", "schedule.peak_rate=1e-3"):
        command += ["--set", assignment]
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    kills = 0
    for _ in range(3):
        process = subprocess.Popen(
            [*command, "--out", str(tmp_path / "killed")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        log, before = tmp_path / "killed" / "log.jsonl", len(read_log(tmp_path / "killed" / "log.jsonl"))
        while process.poll() is None and len(read_log(log)) < before + 4:
            time.sleep(0.01)
        kills += process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert kills >= 2
    subprocess.run([*command, "--out", str(tmp_path / "killed")], check=True, capture_output=True)
    assert same_bits(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert without_times(tmp_path / "whole" / "log.jsonl") == without_times(tmp_path / "killed" / "log.jsonl")


def test_learns_the_flags_from_random_weights(flags: Path, tmp_path: Path) -> None:
    tower = {"width": 64, "layers": 2, "heads": 2}
    shape = {"image": tower, "text": tower, "image_size": 32, "patch": 8, "vocabulary": 600, "embedding": 32}
    outcome = run(quick(**{"schedule.epochs": 60, "shape": shape}), read(flags), None, tmp_path / "run")
    assert outcome.standing is not None and outcome.standing.chance.r1 < 10 and outcome.standing.model.r1 > 40
    best = load(tmp_path / "run" / "best")
    embedded = best.encode_texts(["a person with a red top and blue trousers"])
    shown = best.encode_images(
        [Image.open(flags / "test-1-0.png").convert("RGB"), Image.open(flags / "test-14-0.png").convert("RGB")]
    )
    assert (embedded @ shown.T).argmax() == 0
    with Image.open(tmp_path / "run" / "report.png") as picture:
        assert picture.width > 600
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["model"]["r1"] == pytest.approx(outcome.standing.model.r1)


def test_other_settings_in_the_same_folder_are_refused(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    data = read(flags)
    run(quick(), data, tiny_model_folder, tmp_path, stop_after=1)
    with pytest.raises(SettingsError, match="other settings"):
        run(quick(seed=1), data, tiny_model_folder, tmp_path)


def test_a_data_set_without_val_is_refused(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    data = read(flags)
    without = PersonDataset(data.name, data.root, tuple(i for i in data.images if i.split != "val"))
    with pytest.raises(DataError, match="no val split"):
        run(quick(), without, tiny_model_folder, tmp_path)


def test_an_exploding_loss_is_named(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"schedule\.peak_rate"):
        run(quick(**{"schedule.peak_rate": 1e30, "schedule.initial_rate": 1e30}), read(flags), tiny_model_folder, tmp_path)


def test_the_averaged_weights_are_kept(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    run(quick(ema_decay=0.5, **{"schedule.epochs": 1}), read(flags), tiny_model_folder, tmp_path, stop_after=None)
    kept, state = load(tmp_path / "best").clip.state_dict(), weights(tmp_path)
    assert all(torch.equal(kept[name], state[f"model.averaged.module.{name}"]) for name in kept)
    assert not torch.equal(kept["text_projection.weight"], state["model.clip.text_projection.weight"])
