"""How a step of a study reports its progress."""

from collections.abc import Callable
from typing import Protocol, final

from tbps.training.observer import Observer, StepReport
from tbps.training.state import EpochResult


class WorkObserver(Observer, Protocol):
    """An observer of training that is also told how many modules have been probed. Counts are (done, total)."""

    def on_probe(self, done: int, total: int) -> None: ...


@final
class ProgressObserver:
    """Passes on how many updates, or probed modules, are done; ignores everything else."""

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
