"""docs/explanation/architecture.md names existing files, functions and packages, and all packages of the program."""

import ast
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/explanation/architecture.md"
FOLLOWED = (ROOT / "tests/gallery/search/test_walk.py", ROOT / "tests/gallery/ingest/test_walk.py")
WALK = re.compile(r"^\| `(src/[\w/.]+\.py)` \| `([\w.]+)` \|", re.MULTILINE)


def walks() -> list[tuple[str, str]]:
    """File and function of every row in the page's tables of call chains ("walks")."""
    return WALK.findall(PAGE.read_text())


def names(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[str]:
    """Functions and classes of a module, methods as Class.method."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from names(node, f"{prefix}{node.name}.")


def test_the_page_has_three_call_chains() -> None:
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    walked = [len(WALK.findall(section)) for section in sections]
    assert sorted(count > 0 for count in walked)[-3:] == [True] * 3
    assert sum(walked) == len(walks())


def followed(test: Path) -> list[tuple[str, str]]:
    """The constant WALK of a test that follows real calls, read without importing the program."""
    (walk,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(test.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "WALK"
    )
    return [(f"src/tbps/{file}", function) for file, function in walk]


def test_the_walks_are_short_and_enter_no_file_twice() -> None:
    """At most ten calls and eight files each. The first two are those that tests follow in a real search and a real run."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    found = [walk for section in sections if (walk := WALK.findall(section))]
    for walk in found:
        files = [file for file, _ in groupby(file for file, _ in walk)]
        assert len(walk) <= 10 and len(files) <= 8 and len(files) == len(set(files))
    assert found[:2] == [followed(test) for test in FOLLOWED]


@pytest.mark.parametrize(("file", "function"), walks())
def test_every_function_of_a_call_chain_exists(file: str, function: str) -> None:
    assert function in set(names(ast.parse((ROOT / file).read_text()))), f"{file} has no {function}"


def test_the_source_tree_of_the_page_is_complete() -> None:
    lines = PAGE.read_text().partition("## The tree")[2].partition("\n## ")[0]
    named = {path.rstrip("/") for path in re.findall(r"(?<!\S)(?:src/tbps|[a-z]+)/[\w/.]*", lines)}
    missing = sorted(path for path in named if not (ROOT / path).exists())
    assert not missing, f"the page names {missing}, which do not exist"
    rooms = [path for path in (ROOT / "src/tbps").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    unnamed = {f"src/tbps/{path.name}" for path in rooms if not path.name.startswith("_")} - named
    assert not unnamed, f"the tree of the page lacks {sorted(unnamed)}"
