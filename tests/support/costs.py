"""Processor time per test function, and the list of slow tests that `make test-fast` skips.

`tests/slow.tsv` has one line per slow test function, `seconds <tab> node id without parameters`: user and system time of all its
cases, including the processes that it starts. Wall-clock time is not used, since it depends on the load of the machine.
`make test-costs` rewrites the list.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "slow.tsv"
LISTED = 0.5  # seconds; slower test functions are listed
REPORTED = 5.0  # seconds; a run reports slower test functions that are not in the list


def function_of(node_id: str) -> str:
    """The node id of a test without its parameters."""
    return node_id.partition("[")[0]


def recorded(file: Path = FILE) -> dict[str, float]:
    """Seconds of each listed test function."""
    lines = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    return {function: float(seconds) for seconds, function in lines}


def record(spent: dict[str, float], file: Path = FILE) -> None:
    """Writes the list, slowest first."""
    dear = sorted(((seconds, function) for function, seconds in spent.items() if seconds >= LISTED), reverse=True)
    file.write_text("".join(f"{seconds:.1f}\t{function}\n" for seconds, function in dear), encoding="utf-8")


def arrange(items: list[pytest.Item], costs: dict[str, float]) -> None:
    """Marks the listed tests as slow and orders files by cost, so that no worker starts a slow file at the end."""
    of_file = Counter[str]()
    for function, seconds in costs.items():
        of_file[function.partition("::")[0]] += seconds
    for item in items:
        if function_of(item.nodeid) in costs:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: -of_file[item.nodeid.partition("::")[0]])  # stable: tests of a file keep their order


class Costs:
    """Pytest plugin that measures the processor time of every test; workers send it to the main process with their reports."""

    def __init__(self, file: Path | None) -> None:
        """`file`: file to which the list is written at the end, or None."""
        self._file = file
        self._before = _processor_time()
        self._spent = Counter[str]()

    def pytest_runtest_logstart(self) -> None:
        self._before = _processor_time()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        report = yield  # of setup, call or teardown
        now = _processor_time()
        report.processor_time, self._before = now - self._before, now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._spent[function_of(report.nodeid)] += getattr(report, "processor_time", 0.0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._file is not None:
            record(self._spent, self._file)
        listed = recorded()
        for function, seconds in self._spent.most_common():
            if seconds >= REPORTED and function not in listed:
                terminalreporter.write_line(f"{function} took {seconds:.0f} s of processor time and is not in tests/slow.tsv")


def _processor_time() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
