"""Observers: callbacks by which a step of a study reports its progress."""

from collections.abc import Callable
from typing import Protocol, final

from tbps.training.observer import Observer, StepReport
from tbps.training.state import EpochResult


class WorkObserver(Observer, Protocol):
    """Observer of training with an additional callback for the number of probed modules. Counts are (done, total)."""

    def on_probe(self, done: int, total: int) -> None: ...


@final
class ProgressObserver:
    """Forward the number of finished updates or probed modules to one callback, and ignore everything else."""

    def __init__(self, on_progress: Callable[[int, int], None]) -> None:
        self._on_progress = on_progress

    def on_cache(self, done: int, total: int) -> None:
        pass

    def on_division(self, done: int, total: int) -> None:
        pass

    def on_probe(self, done: int, total: int) -> None:
        self._on_progress(done, total)

    def on_step(self, report: StepReport) -> None:
        self._on_progress(report.step, report.steps)

    def on_epoch(self, result: EpochResult) -> None:
        pass
