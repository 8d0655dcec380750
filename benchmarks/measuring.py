"""Repeated runs, ways that take turns, and the memory of a run."""

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

RUNS = 5

Run = Callable[[], object]
Way = TypeVar("Way", bound=Run)


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity, measured several times; `at`: the size at which, where a benchmark measures one quantity at several."""

    what: str
    unit: str
    runs: tuple[float, ...]
    at: int | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    @property
    def least(self) -> float:
        return min(self.runs)

    @property
    def most(self) -> float:
        return max(self.runs)


def say(text: str) -> None:
    """A line of progress."""
    print(f"  {text}", flush=True)


def wait_for(device: torch.device | str) -> None:
    """Until the device has done what it was told."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Run, clock: Callable[[], float] = time.perf_counter, device: torch.device | str = "cpu") -> float:
    """Seconds of one run."""
    wait_for(device)
    start = clock()
    run()
    wait_for(device)
    return clock() - start


def seconds(run: Run, runs: int = RUNS, clock: Callable[[], float] = time.perf_counter) -> tuple[float, ...]:
    """The time of each of several runs, after one that does not count."""
    run()
    return tuple(timed(run, clock) for _ in range(runs))


def in_turn(ways: Mapping[str, Way], runs: int = RUNS, measure: Callable[[Way], float] = timed) -> dict[str, tuple[float, ...]]:
    """What `measure` finds of each way, which take turns (A B C A B C ...) so that ratios hold when the machine's speed drifts;
    one run of each before that does not count (`Apart` has one of its own in each of its processes).
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        if not isinstance(run, Apart):
            run()
    for number in range(runs):
        for name, run in ways.items():
            found[name].append(measure(run))
        say(f"run {number + 1} of {runs}: " + ", ".join(f"{name} {each[-1]:.3g}" for name, each in found.items()))
    return {name: tuple(each) for name, each in found.items()}


def megabytes(run: Run) -> float:
    """How far the resident memory of this process rises above where it stands (glibc on Linux)."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier runs freed must not hide what this one takes
    Path("/proc/self/clear_refs").write_text("5")  # lets the high-water mark start from here
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1000


@dataclass(frozen=True, slots=True)
class Apart:
    """A run, a function that pickle can name, measured in processes of its own, which share neither freed memory nor threads.

    Each measurement is one process that runs twice, of which the second counts, and ends: no two hold their memory at once.
    """

    run: Run

    def __call__(self) -> float:
        """Seconds."""
        return float(self._measured(_timed_warm))

    def megabytes(self) -> float:
        """Of memory, there."""
        return float(self._measured(_megabytes_warm))

    def outcome(self) -> Any:
        """What it returns there."""
        return self._measured(_outcome)

    def _measured(self, measure: Callable[[Run], Any]) -> Any:
        spawn = get_context("spawn")
        here, there = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_measure_there, args=(there, measure, self.run), daemon=True)
        process.start()
        there.close()
        try:
            with here:
                return here.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"a process that was measured ended with {process.exitcode} and no result") from None
        finally:
            process.join()


def _outcome(run: Run) -> object:
    return run()


def _timed_warm(run: Run) -> float:
    run()
    return timed(run)


def _megabytes_warm(run: Run) -> float:
    run()
    return megabytes(run)


def _measure_there(result: Connection, measure: Callable[[Run], Any], run: Run) -> None:
    result.send(measure(run))


def rates(what: str, unit: str, count: float, spent: Sequence[float]) -> Row:
    """So many things in each of these seconds, as things a second."""
    return Row(what, unit, tuple(count / each for each in spent))


def ratios(what: str, above: Sequence[float], below: Sequence[float]) -> Row:
    """One divided by the other, run by run."""
    return Row(what, "ratio", tuple(a / b for a, b in zip(above, below, strict=True)))


def _status(field: str) -> int:
    """A field of this process's status in kB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1])
