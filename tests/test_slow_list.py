"""tests/slow.tsv lists existing tests, and the listed tests are marked as slow."""

import ast
from pathlib import Path

import pytest

from tests.support.costs import LISTED, function_of, record, recorded

ROOT = Path(__file__).parents[1]


def functions(file: Path) -> set[str]:
    """Node ids of the test functions of a file, without parameters."""
    here = file.relative_to(ROOT).as_posix()
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else []
        found |= {f"{here}::{node.name}"} if isinstance(node, ast.FunctionDef) else set()
        found |= {f"{here}::{node.name}::{each.name}" for each in inner if isinstance(each, ast.FunctionDef)}  # type: ignore[union-attr]
    return found


def test_every_listed_test_exists() -> None:
    listed = set(recorded())
    files = {ROOT / function.partition("::")[0] for function in listed}
    existing = set().union(*(functions(file) for file in files if file.exists()))
    assert listed - existing == set(), "renamed or removed: correct tests/slow.tsv, or run `make test-costs`"
    assert listed


def test_the_listed_tests_are_marked(request: pytest.FixtureRequest) -> None:
    listed = set(recorded())
    unmarked = [
        item for item in request.session.items if function_of(item.nodeid) in listed and not item.get_closest_marker("slow")
    ]
    assert not unmarked


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    spent = {
        "tests/test_a.py::test_quick": LISTED / 2,
        "tests/test_a.py::test_slow": 3.25,
        "tests/test_b.py::T::test_slowest": 40.0,
    }
    record(spent, tmp_path / "slow.tsv")
    assert recorded(tmp_path / "slow.tsv") == {"tests/test_b.py::T::test_slowest": 40.0, "tests/test_a.py::test_slow": 3.2}
