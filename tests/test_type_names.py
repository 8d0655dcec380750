"""Public names of classes and types are unique in the package.

Checked for the names of `data`, `model`, `preprocess` and the top-level modules.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "tbps"
ROOMS = ("data", "model", "preprocess")
SAME_MEANING = {"OnProgress"}  # a function of (done, total); packages that do not import each other define it separately


def types_of(code: str) -> Iterator[str]:
    """Yields the public classes and type aliases that a module defines."""
    for node in ast.parse(code).body:
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        else:
            continue
        yield from (name for name in names if name[0].isupper() and not name.isupper())


def test_names_of_types_are_unique() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for file in sorted(SOURCE.rglob("*.py")):
        for name in types_of(file.read_text(encoding="utf-8")):
            homes[name].append(file.relative_to(SOURCE).as_posix())
    shared = {name: files for name, files in homes.items() if len(files) > 1 and name not in SAME_MEANING}
    assert not {name: files for name, files in shared.items() if any("/" not in f or f.split("/")[0] in ROOMS for f in files)}


def test_classes_and_aliases_are_found() -> None:
    assert list(types_of("class Row: ...\nTable = dict[str, int]\nLIMITS = dict[str, int]\n_Own = list[int]\nsize = 3")) == [
        "Row",
        "Table",
    ]
