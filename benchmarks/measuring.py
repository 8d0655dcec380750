"""Time and memory of repeated runs, of alternating variants, and of runs in separate processes."""

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

RUNS = 5

Workload = Callable[[], object]
Way = TypeVar("Way", bound=Workload)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One quantity, measured several times. `at`: the size, where a benchmark measures a quantity at several sizes."""

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
    """Prints a line of progress."""
    print(f"  {text}", flush=True)


def wait_for(device: "torch.device | str") -> None:
    """Waits until a GPU has finished its queued work; a CPU has none."""
    if str(device).startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def timed(run: Workload, clock: Callable[[], float] = time.perf_counter, device: "torch.device | str" = "cpu") -> float:
    """Returns the seconds of one run."""
    wait_for(device)
    start = clock()
    run()
    wait_for(device)
    return clock() - start


def seconds(run: Workload, runs: int = RUNS, clock: Callable[[], float] = time.perf_counter) -> tuple[float, ...]:
    """Returns the seconds of each of several runs, after one warm-up run."""
    run()
    return tuple(timed(run, clock) for _ in range(runs))


def in_turn(ways: Mapping[str, Way], runs: int = RUNS, measure: Callable[[Way], float] = timed) -> dict[str, tuple[float, ...]]:
    """Measures several variants in turn (A B C A B C ...), so that ratios stay valid when the speed of the machine drifts.

    Each variant starts with one warm-up run, which is not measured.
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
    """Returns the rise of this process's resident memory during a run, in MB (glibc on Linux)."""
    ctypes.CDLL(None).malloc_trim(0)  # returns memory that earlier runs freed to the system
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1000


@dataclass(frozen=True, slots=True)
class Apart:
    """Measurements of a workload in separate processes: seconds and megabytes of each run, and the result of the first."""

    seconds: tuple[float, ...]
    megabytes: tuple[float, ...]
    outcome: Any


def apart(ways: Mapping[str, Workload], runs: int = RUNS) -> dict[str, Apart]:
    """Measures picklable functions in turn, each run in a new process.

    The processes share neither freed memory nor threads, and only one exists at a time. The first run in each is a warm-up.
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
    """Applies `measure` to a workload in a new process and waits for it. Raises RuntimeError if the process died."""
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
        raise RuntimeError(f"a measured process ended with {process.exitcode} and no result") from None
    finally:
        process.join()


def _measured(run: Workload) -> tuple[float, float, Any]:
    outcome = run()
    return timed(run), megabytes(run), outcome


def _measure_there(result: Connection, measure: Callable[[Workload], Any], run: Workload) -> None:
    result.send(measure(run))


def rates(what: str, unit: str, count: float, spent: Sequence[float]) -> Measurement:
    """Converts seconds for `count` things into things per second."""
    return Measurement(what, unit, tuple(count / each for each in spent))


def ratios(what: str, above: Sequence[float], below: Sequence[float]) -> Measurement:
    """Divides two lists of values, run by run."""
    return Measurement(what, "ratio", tuple(a / b for a, b in zip(above, below, strict=True)))


def _status(field: str) -> int:
    """Returns a field of this process's status in kB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1])
