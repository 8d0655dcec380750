"""Executors: several processes give the results of one, a killed process is a failed step, a missing Ray is reported."""

import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tbps.errors import MissingDependencyError
from tbps.study.ablations import AblationRow, AblationTable
from tbps.study.executors import Slot, cpu_slots, gpu_slots, run_here, run_in_slots, run_on_ray
from tbps.study.plan import Material, steps_of
from tbps.study.step import StepState, read_error
from tbps.study.work.training import Training
from tests.study.small_study import Recorder, lasting, planned, quick, three_rows


@pytest.mark.slow
def test_two_slots_equal_one_process(material: Material, tmp_path: Path) -> None:
    rows = (*three_rows().rows[::2], AblationRow("too large", Training(train=quick(batch_size=1000)), "plain"))
    steps = steps_of(planned(AblationTable("tricks", "", "", rows), material))
    here, slots = tmp_path / "here", tmp_path / "slots"
    run_here(here, steps, "cpu", Recorder(), lambda: False, material.dataset)
    watch = Recorder()
    ends = run_in_slots(slots, steps, cpu_slots(2), watch, lambda: False)
    assert [ends[step.fingerprint].state for step in steps] == [StepState.DONE, StepState.DONE, StepState.FAILED]
    assert [lasting(slots, step) for step in steps[:2]] == [lasting(here, step) for step in steps[:2]]
    assert "do not fill one batch" in watch.ended[steps[2].fingerprint].error
    assert [(done, total) for name, done, total in watch.updates if name == steps[0].fingerprint] == [(4, 8), (8, 8)]


@pytest.mark.slow
def test_a_killed_process_is_a_failed_step_and_others_can_be_stopped(material: Material, tmp_path: Path) -> None:
    step = planned(
        AblationTable("tricks", "", "", (AblationRow("long", Training(train=quick(**{"schedule.epochs": 400})), None),)), material
    )[0].step

    class Killer(Recorder):
        def on_update(self, step: Any, done: int, total: int) -> None:
            super().on_update(step, done, total)
            (child,) = _children()
            os.kill(child, signal.SIGKILL)

    ends = run_in_slots(tmp_path, [step], cpu_slots(1), Killer(), lambda: False)
    assert ends[step.fingerprint].state is StepState.FAILED
    assert "ended with code -9" in str(read_error(step.folder(tmp_path)))
    watch = Recorder(stop_after=1)
    assert run_in_slots(tmp_path, [step], cpu_slots(1), watch, watch.stop)[step.fingerprint].state is StepState.STOPPED
    assert not run_in_slots(tmp_path, [step], cpu_slots(1), Recorder(), lambda: True)


def _children() -> list[int]:
    """Worker processes that this process started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(stat[1]) == os.getpid() and b"tbps.study.worker" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_slots_of_gpus_are_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_slots() == [Slot("cuda", {"CUDA_VISIBLE_DEVICES": "0"}), Slot("cuda", {"CUDA_VISIBLE_DEVICES": "1"})]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in gpu_slots()] == ["3", "GPU-5"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert gpu_slots() == []


def test_a_missing_ray_is_named(monkeypatch: pytest.MonkeyPatch, material: Material, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"--on ray needs ray.*pip install -e '\.\[ray\]'"):
        run_on_ray(tmp_path, [], "cpu", Recorder(), lambda: False)


class _Cluster(types.ModuleType):
    """Replaces Ray, which is not a test dependency. Remote calls run in `get`, the last one first."""

    class exceptions:
        class RayError(Exception):
            pass

    def __init__(self) -> None:
        super().__init__("ray")
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def init(self, address: str, **options: Any) -> None:
        assert address == "auto"

    def remote(self, **options: Any) -> Any:
        def wrap(function: Any) -> Any:
            def call(*arguments: Any) -> int:
                self.calls.append((function, arguments))
                return len(self.calls) - 1

            return types.SimpleNamespace(remote=call)

        return wrap

    def wait(self, waiting: list[int], timeout: float) -> tuple[list[int], list[int]]:
        return waiting[-1:], waiting[:-1]

    def get(self, number: int) -> Any:
        function, arguments = self.calls[number]
        if arguments[1] == self.lost:
            raise self.exceptions.RayError("node died")
        return function(*arguments)

    lost = ""


def test_results_on_ray_equal_those_of_this_process(monkeypatch: pytest.MonkeyPatch, material: Material, tmp_path: Path) -> None:
    cluster = _Cluster()
    monkeypatch.setitem(sys.modules, "ray", cluster)
    first = Training(train=quick(text_attention_dropout=0.2))
    rows = (
        AblationRow("on top", Training(train=quick()), None, start=first),
        AblationRow("lost", Training(train=quick(seed=5)), None),
    )
    steps = steps_of(planned(AblationTable("tricks", "", "", rows), material))
    cluster.lost = steps[2].fingerprint
    here, there = tmp_path / "here", tmp_path / "there"
    run_here(here, steps[:2], "cpu", Recorder(), lambda: False, material.dataset)
    watch = Recorder()
    ends = run_on_ray(there, steps, "cpu", watch, lambda: False)
    assert [ends[step.fingerprint].state for step in steps] == [StepState.DONE, StepState.DONE, StepState.FAILED]
    assert "node died" in watch.ended[steps[2].fingerprint].error
    assert [lasting(there, step) for step in steps[:2]] == [lasting(here, step) for step in steps[:2]]
