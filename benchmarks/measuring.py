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

Workload = Callable[[], object]
Way = TypeVar("Way", bound=Workload)


@dataclass(frozen=True, slots=True)
class Measurement:
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


def timed(run: Workload, clock: Callable[[], float] = time.perf_counter, device: torch.device | str = "cpu") -> float:
    """Seconds of one run."""
    wait_for(device)
    start = clock()
    run()
    wait_for(device)
    return clock() - start


def seconds(run: Workload, runs: int = RUNS, clock: Callable[[], float] = time.perf_counter) -> tuple[float, ...]:
    """The time of each of several runs, after one that does not count."""
    run()
    return tuple(timed(run, clock) for _ in range(runs))


def in_turn(ways: Mapping[str, Way], runs: int = RUNS, measure: Callable[[Way], float] = timed) -> dict[str, tuple[float, ...]]:
    """What `measure` finds of each way, which take turns (A B C A B C ...) so that ratios hold when the machine's speed drifts;
    one run of each before that does not count.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run()
    for number in range(runs):
        for name, run in ways.items():
            found[name].append(measure(run))
        say(f"run {number + 1} of {runs}: " + ", ".join(f"{name} {each[-1]:.3g}" for name, each in found.items()))
    return {name: tuple(each) for name, each in found.items()}


def megabytes(run: Workload) -> float:
    """How far the resident memory of this process rises above where it stands (glibc on Linux)."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier runs freed must not hide what this one takes
    Path("/proc/self/clear_refs").write_text("5")  # lets the high-water mark start from here
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1000


@dataclass(frozen=True, slots=True)
class Apart:
    """What was measured of a run in processes of its own: seconds and megabytes of each, and what the first one returned."""

    seconds: tuple[float, ...]
    megabytes: tuple[float, ...]
    outcome: Any


def apart(ways: Mapping[str, Workload], runs: int = RUNS) -> dict[str, Apart]:
    """Measures each of the ways, functions that pickle can name, which take turns, each time in a process of its own.

    The processes share neither freed memory nor threads, and no two hold their memory at once. The first run in each does not
    count.
    """
    found: dict[str, list[tuple[float, float, Any]]] = {name: [] for name in ways}
    for number in range(runs):
        for name, run in ways.items():
            found[name].append(in_a_process(_measured, run))
        say(f"run {number + 1} of {runs}: " + ", ".join(f"{name} {each[-1][0]:.3g}" for name, each in found.items()))
    made = {}
    for name, each in found.items():
        times, most, outcomes = zip(*each, strict=True)
        made[name] = Apart(times, most, outcomes[0])
    return made


def in_a_process(measure: Callable[[Workload], Any], run: Workload) -> Any:
    """What `measure` finds of a run in a fresh process, which has ended then. Raises RuntimeError where it died."""
    spawn = get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_measure_there, args=(there, measure, run), daemon=True)
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


def _measured(run: Workload) -> tuple[float, float, Any]:
    outcome = run()
    return timed(run), megabytes(run), outcome


def _measure_there(result: Connection, measure: Callable[[Workload], Any], run: Workload) -> None:
    result.send(measure(run))


def rates(what: str, unit: str, count: float, spent: Sequence[float]) -> Measurement:
    """So many things in each of these seconds, as things a second."""
    return Measurement(what, unit, tuple(count / each for each in spent))


def ratios(what: str, above: Sequence[float], below: Sequence[float]) -> Measurement:
    """One divided by the other, run by run."""
    return Measurement(what, "ratio", tuple(a / b for a, b in zip(above, below, strict=True)))


def _status(field: str) -> int:
    """A field of this process's status in kB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1])
