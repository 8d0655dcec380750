"""Dotted names in docstrings exist, in `data`, `model`, `preprocess` and the top-level modules of the package.

A reference such as `augment.boxes` or `PersonModel.encode_texts` must be changed when its target is renamed or removed.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
ROOMS = ("data", "model", "preprocess")
DOTTED = re.compile(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)`")


def members(body: list[ast.stmt]) -> Iterator[str]:
    """Yields the names that the statements of a module or class define."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign):
            yield ast.unparse(node.target)
        elif isinstance(node, ast.Assign):
            yield from (ast.unparse(target) for target in node.targets)


def known_names() -> set[str]:
    """Returns the full dotted names of all modules, their members and the members of their classes."""
    found = set()
    for file in SOURCE.rglob("*.py"):
        module = ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found |= {module, *(f"{module}.{name}" for name in members(tree.body))}
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                # Attributes set in methods count as members.
                own = {a.attr for a in ast.walk(node) if isinstance(a, ast.Attribute) and isinstance(a.ctx, ast.Store)}
                found |= {f"{module}.{node.name}.{name}" for name in {*members(node.body), *own}}
    return found


KNOWN = known_names()
ENDINGS = {".".join(parts[start:]) for parts in (name.split(".") for name in KNOWN) for start in range(len(parts))}
MODULES = {part for name in KNOWN if name.islower() for part in name.split(".")}
CLASSES = {part for name in KNOWN for part in name.split(".") if part[0].isupper()}
# Settings keys, parameters and a function of the standard library, whose first part is also the name of a module.
OTHERS = {"lora.rank", "settings.method", "spec.mean", "spec.std", "html.unescape"}


def references(file: Path) -> Iterator[str]:
    """Yields dotted names in the docstrings of a file that begin with a module or class of this package; skips file names."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for name in DOTTED.findall(node.value.value):
                if name.split(".")[0] in MODULES | CLASSES and not name.endswith((".json", ".jsonl")) and name not in OTHERS:
                    yield name


FILES = [
    file
    for file in sorted((SOURCE / "tbps").rglob("*.py"))
    if file.parent.name == "tbps" or file.relative_to(SOURCE / "tbps").parts[0] in ROOMS
]


def test_dotted_names_in_docstrings_exist() -> None:
    lost = {(file.name, name) for file in FILES for name in references(file) if name not in ENDINGS}
    assert not lost


@pytest.mark.parametrize(("name", "exists"), [("augment.boxes", True), ("PersonModel.encode_texts", True), ("data.boxes", False)])
def test_names_are_resolved_from_any_package(name: str, exists: bool) -> None:
    assert (name in ENDINGS) == exists


def test_references_are_found(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text('"""See `data.boxes`, `np.ndarray` and `boxes`."""\n')
    assert list(references(file)) == ["data.boxes"]
