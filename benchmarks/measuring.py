"""What the benchmarks share: repeated runs, the memory of a run, and how a result is printed.

A result is one line of JSON, to be kept, and a Markdown table of the same rows, to be read (docs/benchmarks.md).
"""

import ctypes
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("numpy", "pillow", "torch", "transformers")
RUNS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity, measured several times."""

    what: str
    unit: str
    runs: tuple[float, ...]

    def cells(self) -> tuple[str, float, float, float, str]:
        """What, median, least, most, unit."""
        return self.what, statistics.median(self.runs), min(self.runs), max(self.runs), self.unit


def seconds(run: Callable[[], object], runs: int = RUNS, clock: Callable[[], float] = time.perf_counter) -> tuple[float, ...]:
    """The time of each of several runs, after one that does not count."""
    run()
    spent = []
    for _ in range(runs):
        start = clock()
        run()
        spent.append(clock() - start)
    return tuple(spent)


def megabytes(run: Callable[[], object], runs: int = RUNS) -> tuple[float, ...]:
    """For each of several runs, how far the resident memory of this process rose above where it stood (glibc on Linux)."""
    risen = []
    for _ in range(runs):
        ctypes.CDLL(None).malloc_trim(0)  # what earlier runs freed must not hide what this one takes
        Path("/proc/self/clear_refs").write_text("5")  # lets the high-water mark start from here
        before = _status("VmRSS")
        run()
        risen.append((_status("VmHWM") - before) / 1000)
    return tuple(risen)


def rates(what: str, unit: str, count: int, spent: Sequence[float]) -> Row:
    """So many things in each of these seconds, as things a second."""
    return Row(what, unit, tuple(count / each for each in spent))


def ratios(what: str, ours: Sequence[float], other: Sequence[float]) -> Row:
    """How many times the other way takes, run by run."""
    return Row(what, "times", tuple(b / a for a, b in zip(ours, other, strict=True)))


def publish(benchmark: str, rows: Sequence[Row], conditions: Mapping[str, object]) -> None:
    """Prints the line of JSON and the table."""
    record = {
        "benchmark": benchmark,
        "conditions": dict(conditions),
        "machine": {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": _commit(),
        "rows": [
            {"what": row.what, "unit": row.unit, "median": row.cells()[1], "runs": [float(f"{run:.6g}") for run in row.runs]}
            for row in rows
        ],
    }
    print(json.dumps(record))
    print("\n| what | median | least | most | unit |\n|---|---:|---:|---:|---|")
    for row in rows:
        what, *numbers, unit = row.cells()
        print(f"| {what} | {' | '.join(f'{number:,.4g}' for number in numbers)} | {unit} |")


def _status(field: str) -> int:
    """A field of this process's status in kB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1])


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _commit() -> str:
    """The commit that is checked out, with a plus where files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout

    return git("rev-parse", "--short", "HEAD").strip() + ("+" if git("status", "--porcelain", "--", "../src") else "")
