"""A study that is killed and resumed gives the results of an uninterrupted one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tbps.study.ablations import table
from tbps.study.executors import run_here
from tbps.study.plan import Material, plan, steps_of
from tbps.study.report.tables import read_study
from tbps.study.result import RESULT
from tbps.study.step import StepState
from tests.study.small_study import CHANGES, Recorder, lasting

ROWS = ("clip", "clip+dropout", "clip+soft_label")
LONGER = CHANGES | {"schedule.epochs": "8"}


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(material: Material, people: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "tbps.cli", "study", "run", "tricks", "--data", "folder", "--root", str(people)]
    command += ["--model", str(tiny_model_folder), "--out", str(killed), "--rows", ",".join(ROWS), "--seeds", "1"]
    for key, value in LONGER.items():
        command += ["--set", f"{key}={value}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    steps = steps_of(plan(table("tricks"), ROWS, (0,), LONGER, material))
    second = steps[1].folder(killed) / "run" / "checkpoints"
    while process.poll() is None and not list(second.glob("step-*.safetensors")):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = [(step.folder(killed) / RESULT).exists() for step in steps]
    assert done == [True, False, False]

    (begun,) = read_study(killed)
    assert [list(line.missing.values()) for line in begun.rows] == [[], ["not finished"], ["not begun"]]

    watch = Recorder()
    assert {end.state for end in run_here(killed, steps, "cpu", watch, watch.stop, material.dataset).values()} == {StepState.DONE}
    assert {name for name, _, _ in watch.updates} == {step.fingerprint for step in steps[1:]}
    run_here(whole, steps, "cpu", Recorder(), watch.stop, material.dataset)
    assert [lasting(killed, step) for step in steps] == [lasting(whole, step) for step in steps]
    (ended,) = read_study(killed)
    assert [line.seeds for line in ended.rows] == [[0]] * 3 and not any(line.missing for line in ended.rows)


@pytest.mark.slow
def test_ctrl_c_stops_at_the_next_update_and_names_the_command_to_continue(
    people: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tbps.cli", "study", "run", "tricks", "--data", "folder", "--root", str(people)]
    command += ["--model", str(tiny_model_folder), "--out", str(tmp_path), "--seeds", "1", "--epochs", "500"]
    command += ["--set", "batch_size=16", "--set", "checkpoint_steps=3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    while process.poll() is None and not list(tmp_path.glob("steps/*/run/checkpoints/*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 130 and "run the same command again to continue" in said
    assert not list(tmp_path.glob("steps/*/result.json")) and not list(tmp_path.glob("steps/*/error.json"))
