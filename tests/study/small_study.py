"""An ablation table of three rows that take one second each, and an observer that records progress."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from tbps.study.ablations import AblationRow, AblationTable
from tbps.study.plan import Material, Planned, plan
from tbps.study.recipes import clip
from tbps.study.result import StepResult, read_result
from tbps.study.step import End, Step
from tbps.study.work.training import Training
from tbps.training.settings import TrainSettings

CHANGES = {
    "batch_size": "16",
    "schedule.epochs": "2",
    "schedule.peak_rate": "2e-3",
    "schedule.initial_rate": "1e-4",
    "checkpoint_steps": "3",
}


class Recorder:
    """Records the progress of a study; `stop` is true after `stop_after` progress reports."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.started: list[str] = []
        self.updates: list[tuple[str, int, int]] = []
        self.ended: dict[str, End] = {}
        self.stop_after = stop_after
        self._lock = threading.Lock()

    def on_start(self, step: Step) -> None:
        with self._lock:
            self.started.append(step.fingerprint)

    def on_update(self, step: Step, done: int, total: int) -> None:
        with self._lock:
            self.updates.append((step.fingerprint, done, total))

    def on_end(self, step: Step, end: End) -> None:
        with self._lock:
            self.ended[step.fingerprint] = end

    def stop(self) -> bool:
        return self.stop_after is not None and len(self.updates) >= self.stop_after


def quick(**changes: Any) -> TrainSettings:
    """Settings of a run that takes about one second."""
    return clip().override(CHANGES | changes)


def three_rows() -> AblationTable:
    rows = (
        AblationRow("plain", Training(train=quick()), None),
        AblationRow("dropout", Training(train=quick(text_attention_dropout=0.3)), "plain"),
        AblationRow("few", Training(train=quick(), identities=0.5), "plain"),
    )
    return AblationTable("tricks", "three rows", "nowhere", rows)


def planned(table: AblationTable, material: Material, seeds: tuple[int, ...] = (0,)) -> list[Planned]:
    return plan(table, (), seeds, {}, material)


def lasting(study: Path, step: Step) -> StepResult:
    """The result of a step without its measured times, memory and machine."""
    result = read_result(step.folder(study))
    assert result is not None
    return replace(result, measured={}, device="", torch="", finished_at="")
