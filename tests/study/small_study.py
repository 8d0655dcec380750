"""A table of three rows that take a second each, and a watch that records."""

import threading
from pathlib import Path
from typing import Any

from tbps.study.ablations import Row, Table
from tbps.study.plan import Material, Planned, plan
from tbps.study.recipes import clip
from tbps.study.step import End, Step, read_result
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
    """Keeps what a study tells; `stop_after`: updates told after which it wishes to stop."""

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
    """Settings of a run of a second."""
    return clip().override(CHANGES | changes)


def three_rows() -> Table:
    rows = (
        Row("plain", Training(train=quick()), None),
        Row("dropout", Training(train=quick(text_attention_dropout=0.3)), "plain"),
        Row("few", Training(train=quick(), identities=0.5), "plain"),
    )
    return Table("tricks", "three rows", "nowhere", rows)


def planned(table: Table, material: Material, seeds: tuple[int, ...] = (0,)) -> list[Planned]:
    return plan(table, (), seeds, {}, material)


def lasting(study: Path, step: Step) -> dict[str, Any]:
    """A result without what is measured anew each time."""
    result = read_result(step.folder(study))
    assert result is not None
    return {key: value for key, value in result.items() if key != "measured"}
