"""A process that does one step and tells its progress: `python -m tbps.study.worker STUDY FINGERPRINT DEVICE`.

JSON lines on standard output: {"done": updates, "total": updates} and at the end {"state": ..., "error": ...}. It stops after the
current update on SIGINT, when the file STUDY/stop appears, and when the process that started it is gone.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import final

from tbps.study.step import read_step, run_step
from tbps.training.observer import StepReport
from tbps.training.state import EpochResult

STOP = "stop"


@final
class Updates:
    """An observer that passes on the number of updates, or of modules that are probed, only."""

    def __init__(self, on_update: Callable[[int, int], None]) -> None:
        self._on_update = on_update

    def on_cache(self, done: int, total: int) -> None:
        pass

    def on_division(self, done: int, total: int) -> None:
        pass

    def on_probe(self, done: int, total: int) -> None:
        self._on_update(done, total)

    def on_step(self, report: StepReport) -> None:
        self._on_update(report.step, report.steps)

    def on_epoch(self, result: EpochResult) -> None:
        pass


def run_recorded(study: str, fingerprint: str, device: str) -> tuple[str, str]:
    """Does the step that was written there; (state, error). What a Ray worker calls."""
    flag = Path(study) / STOP
    end = run_step(Path(study), read_step(Path(study) / "steps" / fingerprint), device, Updates(lambda *_: None), flag.exists)
    return end.state.value, end.error


def main(study: str, fingerprint: str, device: str) -> None:
    """Does the step and tells."""
    parent, asked = os.getppid(), []
    signal.signal(signal.SIGINT, lambda *_: asked.append(True))

    def stop() -> bool:
        return bool(asked) or os.getppid() != parent or (Path(study) / STOP).exists()

    def tell(**facts: object) -> None:
        try:
            print(json.dumps(facts), flush=True)
        except BrokenPipeError:  # nobody listens any more; `stop` sees that too
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until this process ends

    step = read_step(Path(study) / "steps" / fingerprint)
    end = run_step(Path(study), step, device, Updates(lambda done, total: tell(done=done, total=total)), stop)
    tell(state=end.state.value, error=end.error)


if __name__ == "__main__":
    main(*sys.argv[1:])
