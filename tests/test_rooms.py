"""Imports between packages: no cycles, imports inside functions only to save time, no imports past a package's exports.

import-linter checks which package may import which (see pyproject.toml). It reads neither `examples` nor `benchmarks` and does not
distinguish imports inside functions; these tests read every import statement, also those inside functions and for type checks.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
FACES = ("tbps", "tbps.data", "tbps.gallery", "tbps.model", "tbps.server", "tbps.video")
# Package -> folders that may import only its exported names.
GUESTS = {
    "tbps.data": ("src/tbps/cli", "examples", "benchmarks"),
    "tbps.gallery": ("src/tbps/cli", "src/tbps/server", "src/tbps/watch", "examples", "benchmarks"),
    "tbps.model": ("src/tbps/cli", "src/tbps/server", "src/tbps/watch", "examples", "benchmarks"),
    "tbps.server": ("src/tbps/cli", "examples", "benchmarks"),
    "tbps.video": ("src/tbps/cli", "src/tbps/server", "src/tbps/watch", "src/tbps/gallery", "examples", "benchmarks"),
}
# Imports inside functions -> what they avoid. The command line is not listed: all of its heavy imports are inside functions.
LATE = {
    ("tbps", "tbps.errors"): "nothing on most systems: it is needed where tbps cannot run",
    ("tbps.data.augment.apply", "tbps.data.augment.opencv"): "OpenCV, where images are augmented on a device",
    ("tbps.data.augment.text", "tbps.data.augment.wordnet"): "nltk, where no word is replaced",
    ("tbps.data.batches", "tbps.data.augment.wordnet"): "nltk, where no word is replaced",
    ("tbps.gallery.store.filter_reading", "tbps.gallery.store.filter_text"): "lark, where no filter is written as text",
    ("tbps.model.text_reader", "tbps.model.bundle"): "torch, where only descriptions are read",
    ("tbps.preprocess.image", "tbps.transfer"): "torch, where a gallery is searched",
    ("tbps.video.detectors.open", "tbps.video.detectors.onnx"): "onnxruntime, where another detector is used",
}


@dataclass(frozen=True)
class Import:
    """One imported name and its module; `name` is None if the module itself is imported."""

    module: str
    name: str | None
    late: bool
    line: int


def name_of(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in sorted((SOURCE / "tbps").rglob("*.py"))}


def imports_of(file: Path) -> Iterator[Import]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: imports name their module in full"
            for alias in node.names:
                if (module := f"{node.module}.{alias.name}") in MODULES:
                    yield Import(module, None, id(node) in inside, node.lineno)
                elif node.module in MODULES:
                    yield Import(node.module, alias.name, id(node) in inside, node.lineno)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in MODULES:
                    yield Import(alias.name, None, id(node) in inside, node.lineno)


def below(file: Path, folders: tuple[str, ...]) -> bool:
    return any(file.is_relative_to(ROOT / folder) for folder in folders)


def test_imports_have_no_cycles() -> None:
    graph = {name: {found.module for found in imports_of(file)} - {name} for name, file in MODULES.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' <- '.join(error.args[1])}")


def test_imports_inside_functions_save_something() -> None:
    late = {
        (name, found.module)
        for name, file in MODULES.items()
        if not name.startswith("tbps.cli")
        for found in imports_of(file)
        if found.late
    }
    assert late == set(LATE), "import it at the top of the file, or state in LATE what the import inside a function saves"


@pytest.mark.parametrize("face", FACES)
def test_a_package_exports_what_it_lists(face: str) -> None:
    """Three lists of exports must agree: imports for type checkers, `__all__`, and the table for lazy imports at run time."""
    package = import_module(face)
    tree = ast.parse(MODULES[face].read_text(encoding="utf-8"))
    typed = {alias.name for block in tree.body if isinstance(block, ast.If) for alias in names_in(block.body)}
    assert set(package.__all__) == typed
    if face != "tbps":
        assert set(dir(package)) == typed
    for name in typed:
        assert getattr(package, name) is not None
    inner = {module.removeprefix(f"{face}.").partition(".")[0] for module in MODULES if module.startswith(f"{face}.")}
    assert not typed & inner, "an exported name would hide the module of that name"


def names_in(body: list[ast.stmt]) -> Iterator[ast.alias]:
    for node in body:
        if isinstance(node, ast.ImportFrom):
            yield from node.names


@pytest.mark.parametrize("face", GUESTS)
def test_other_packages_import_only_what_is_exported(face: str) -> None:
    folders = [ROOT / folder for folder in GUESTS[face]]
    guests = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    assert guests
    exported = set(import_module(face).__all__)
    past = [
        f"{file.relative_to(ROOT)}:{found.line}: {found.module}" + (f".{found.name}" if found.name else "")
        for file in guests
        for found in imports_of(file)
        if found.module.startswith(f"{face}.") or (found.module == face and found.name and found.name not in exported)
    ]
    assert not past


@pytest.mark.parametrize("face", FACES)
def test_a_package_does_not_import_its_own_exports(face: str) -> None:
    if face == "tbps":
        exported = set(import_module(face).__all__)
        wrong = [
            f"{name}: {found.name}"
            for name, file in MODULES.items()
            for found in imports_of(file)
            if found.module == "tbps" and found.name in exported
        ]
    else:
        inside = {name: file for name, file in MODULES.items() if name.startswith(f"{face}.")}
        wrong = [name for name, file in inside.items() for found in imports_of(file) if found.module == face]
    assert not wrong


def test_a_missing_export_is_named_in_the_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'tbps\.video' has no attribute 'nothing'"):
        import_module("tbps.video").nothing  # noqa: B018
