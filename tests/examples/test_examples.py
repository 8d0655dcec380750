"""The docstring of every example states its command, cost and result."""

import ast
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_docstring_states_command_cost_and_result(file: Path) -> None:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    assert f"python examples/{file.name}" in docstring or "make demo" in docstring
    assert "Cost: " in docstring
    assert "Result: " in docstring or "Result with " in docstring


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_files_and_recipes_named_in_the_docstring_exist(file: Path) -> None:
    root = file.parents[1]
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    words = {word.strip(".,:;()[]`") for word in docstring.split()}
    # Only paths in the repository; commands create data, runs and galleries.
    named = {word for word in words if word.startswith(("docs/", "models/", "examples/"))}
    assert all((root / word).exists() for word in named), named
