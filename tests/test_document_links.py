"""Links in Markdown have targets, the navigation lists every page, and every public name has a docstring and is in the reference.

Part of `make check`, so this module does not import the program. `make docs` checks the links of the built site again.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
GENERATED = {ROOT / name for name in (ROOT / ".gitignore").read_text().splitlines() if name.startswith("docs/")}
FILES = {file for pattern in ("*.md", "docs/**/*.md", "models/*/*.md", "tests/**/*.md") for file in ROOT.glob(pattern)}
FILES = sorted(FILES - GENERATED)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    """Targets of the links and pictures of a Markdown text, except those on other servers."""
    return [target for target in LINK.findall(FENCE.sub("", text)) if not target.startswith(("http:", "https:", "mailto:"))]


@cache
def anchors(file: Path) -> set[str]:
    """Anchors of a file's headings, as GitHub and MkDocs generate them."""
    text, found = FENCE.sub("", file.read_text()), set[str]()
    for heading in re.findall(r"^#+ (.+?)\s*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def dead(file: Path, target: str) -> bool:
    """Whether the target of a link does not exist. `make docs` checks anchors of generated pages."""
    path, _, anchor = target.partition("#")
    place = (file.parent / path).resolve() if path else file
    if place in GENERATED:
        return False
    return not place.exists() or (bool(anchor) and anchor not in anchors(place))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_targets_of_links_exist(file: Path) -> None:
    found = [target for target in links(file.read_text()) if dead(file, target)]
    assert not found, f"{file.relative_to(ROOT)} links to {found}"


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A title: with marks\n```\n[no](link)\n```\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md#a-title-with-marks) [b](there.md#nothing) ![c](no.png) [d](https://example.org) [e](nowhere.md)")
    assert [target for target in links(page.read_text()) if dead(page, target)] == ["there.md#nothing", "no.png", "nowhere.md"]


def test_the_navigation_holds_every_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    named = {ROOT / "docs" / page for page in re.findall(r"([\w/-]+\.md)$", navigation, re.MULTILINE)}
    pages = set(ROOT.glob("docs/**/*.md")) | GENERATED
    assert named == pages, f"only in mkdocs.yml: {sorted(named - pages)}; only in docs: {sorted(pages - named)}"


def module(name: str) -> ast.Module:
    """The syntax tree of a module of the program."""
    place = SOURCE / Path(*name.split("."))
    return ast.parse((place / "__init__.py" if place.is_dir() else place.with_suffix(".py")).read_text())


def assigned(node: ast.stmt) -> set[str]:
    """The names to which a statement assigns."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    elements = [each for target in targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return {each.id for each in elements if isinstance(each, ast.Name)}


def exported(tree: ast.Module) -> list[str]:
    """The names in `__all__` of a module."""
    lists = [node.value for node in tree.body if isinstance(node, ast.Assign) and "__all__" in assigned(node)]
    return [name for value in lists for name in ast.literal_eval(value)]


def is_documented(home: str, name: str) -> bool:
    """Whether a class, function or constant has a docstring, in the module that defines it."""
    tree = module(home)
    for number, node in enumerate(tree.body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return ast.get_docstring(node) is not None
        if name in assigned(node):
            after = tree.body[number + 1] if number + 1 < len(tree.body) else None
            return isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    homes = {
        alias.asname or alias.name: each.module
        for each in ast.walk(tree)
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    }
    return name in homes and is_documented(str(homes[name]), name)


def public() -> Iterator[tuple[str, str]]:
    """Every package and each name that it exports."""
    for file in sorted(SOURCE.rglob("__init__.py")):
        package = ".".join(file.parent.relative_to(SOURCE).parts)
        for name in exported(module(package)):
            yield package, name


@pytest.mark.parametrize(("package", "name"), list(public()))
def test_public_names_have_a_docstring(package: str, name: str) -> None:
    assert is_documented(package, name), f"{package}.{name} has no docstring; write one below it, in the module that defines it"


def test_the_reference_holds_every_package_that_exports_names() -> None:
    shown = {
        name
        for page in ROOT.glob("docs/reference/python/*.md")
        for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)
    }
    assert {package for package, _ in public()} <= shown


CODE = re.compile(r"(?<![\w/])(?:src/tbps|tests|examples|benchmarks)/[\w/]+\.py\b")
TO_WRITE = re.compile(r'title="([^"]+)"')  # files that a page has the reader write
WALK = re.compile(r"^\| `(src/[\w/]+\.py)` \| ([^|]+) \|", re.MULTILINE)
CURRENT = [file for file in FILES if "decisions" not in file.parts]  # a decision keeps the names of its day


@pytest.mark.parametrize("file", CURRENT, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_of_code_that_documents_name_exist(file: Path) -> None:
    text = file.read_text()
    missing = {path for path in CODE.findall(text) if not (ROOT / path).exists()} - set(TO_WRITE.findall(text))
    assert not missing, f"{file.relative_to(ROOT)} names {sorted(missing)}"


def test_the_walks_through_the_code_name_functions_of_their_files() -> None:
    steps = WALK.findall((ROOT / "docs/explanation/architecture.md").read_text())
    assert steps
    for file, functions in steps:
        code = (ROOT / file).read_text()
        for name in re.findall(r"[\w.]+", functions):
            assert all(re.search(rf"\b(?:class|def) {part}\b", code) for part in name.split(".")), f"{file} has no {name}"
