"""Who watches a run, and what is told."""

from dataclasses import dataclass
from typing import Protocol, final

from tbps.training.state import EpochResult


@dataclass(frozen=True, slots=True)
class StepReport:
    """One update as the user sees it; `rate` is the learning rate, `pairs_per_second` the throughput since the last report."""

    epoch: int
    step: int
    steps: int
    loss: float
    rate: float
    pairs_per_second: float


class Observer(Protocol):
    """Who watches a run: the command line draws it, a test records it. The counts are (done, total); probes are the study's."""

    def on_cache(self, done: int, total: int) -> None: ...
    def on_division(self, done: int, total: int) -> None: ...
    def on_probe(self, done: int, total: int) -> None: ...
    def on_step(self, report: StepReport) -> None: ...
    def on_epoch(self, result: EpochResult) -> None: ...


@final
class Silent:
    """Watches and says nothing."""

    def on_cache(self, done: int, total: int) -> None:
        pass

    def on_division(self, done: int, total: int) -> None:
        pass

    def on_probe(self, done: int, total: int) -> None:
        pass

    def on_step(self, report: StepReport) -> None:
        pass

    def on_epoch(self, result: EpochResult) -> None:
        pass
