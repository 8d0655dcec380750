"""Rules for tests: no private imports from the package, no assertions on measured time, no short timeouts."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PATIENT = 60  # seconds; a loaded machine may need that long for a fast operation
# Calls that wait for a process, thread, socket or queue. A `timeout` of other calls may be a setting under test.
WAITING = {"run", "wait", "communicate", "check_call", "check_output", "join", "get", "result", "urlopen", "create_connection"}


@cache
def trees() -> dict[str, ast.AST]:
    """The syntax tree of every test file."""
    return {str(file.relative_to(TESTS)): ast.parse(file.read_text(encoding="utf-8")) for file in sorted(TESTS.rglob("*.py"))}


def private_imports(tree: ast.AST) -> Iterator[int]:
    """Lines that import a name with a leading underscore from the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tbps":
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names if alias.name.startswith("tbps.") for part in alias.name.split(".")]
        else:
            continue
        if any(name.startswith("_") and not name.startswith("__") for name in names):
            yield node.lineno


def stopwatches(tree: ast.AST) -> Iterator[int]:
    """Lines that read a clock for measuring; `time.monotonic`, for deadlines, is allowed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in {"perf_counter", "perf_counter_ns", "process_time", "thread_time"}:
                yield node.lineno


def short_timeouts(tree: ast.AST) -> Iterator[int]:
    """Lines that wait with a constant timeout of less than `PATIENT` seconds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAITING:
            limits = [keyword.value for keyword in node.keywords if keyword.arg == "timeout"]
            yield from (limit.lineno for limit in limits if isinstance(limit, ast.Constant) and 0 < limit.value < PATIENT)


@pytest.mark.parametrize("rule", [private_imports, stopwatches, short_timeouts], ids=lambda rule: rule.__name__)
def test_the_tests_keep_the_rules(rule: object) -> None:
    broken = [f"{name}:{line}" for name, tree in trees().items() for line in rule(tree)]  # type: ignore[operator]
    assert not broken


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (private_imports, "from tbps.cli.search import _one_in"),
        (private_imports, "from tbps.gallery import _private"),
        (private_imports, "import tbps.gallery._private"),
        (stopwatches, "import time; started = time.perf_counter()"),
        (stopwatches, "from time import process_time; started = process_time()"),
        (short_timeouts, "subprocess.run(command, timeout=10)"),
        (short_timeouts, "process.wait(timeout=0.5)"),
    ],
)
def test_broken_rules_are_found(rule: object, text: str) -> None:
    assert list(rule(ast.parse(text))) == [1]  # type: ignore[operator]


def test_allowed_lines_are_not_reported() -> None:
    tree = ast.parse("from tbps import __version__; process.wait(timeout=300); served(gallery, timeout=0.5); time.monotonic()")
    assert not [*private_imports(tree), *stopwatches(tree), *short_timeouts(tree)]
