"""Callbacks that report the progress of a training run."""

from dataclasses import dataclass
from typing import Protocol, final

from tbps.training.state import EpochResult


@dataclass(frozen=True, slots=True)
class StepReport:
    """Progress after an update. `rate`: learning rate. `pairs_per_second`: throughput since the last report."""

    epoch: int
    step: int
    steps: int
    loss: float
    rate: float
    pairs_per_second: float


class Observer(Protocol):
    """Receives the progress of a run.

    `on_cache` gets (done, total) of decoded images, `on_division` that of images and captions encoded for a division.
    """

    def on_cache(self, done: int, total: int) -> None: ...
    def on_division(self, done: int, total: int) -> None: ...
    def on_step(self, report: StepReport) -> None: ...
    def on_epoch(self, result: EpochResult) -> None: ...


@final
class Silent:
    """An observer that ignores everything."""

    def on_cache(self, done: int, total: int) -> None:
        pass

    def on_division(self, done: int, total: int) -> None:
        pass

    def on_step(self, report: StepReport) -> None:
        pass

    def on_epoch(self, result: EpochResult) -> None:
        pass
