"""Commands in documents parse, and the settings, recipes and files that documents name exist. No command is run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from tbps.cli import app
from tbps.data.mannequins.layouts import LAYOUTS
from tbps.data.readers.catalog import names
from tbps.errors import SettingsError
from tbps.study.ablations import table as study_table
from tbps.study.recipes import RECIPES, recipe

ROOT = Path(__file__).parents[1]
GENERATED = {ROOT / name for name in (ROOT / ".gitignore").read_text().splitlines() if name.startswith("docs/")}
PAGES = {page for page in ROOT.glob("docs/**/*.md") if page.relative_to(ROOT).parts[1] not in ("decisions", "study")} - GENERATED
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(PAGES), *sorted(ROOT.glob("models/*/README.md"))]
RECIPE_PARTS = (r"^ *Command: tbps ", r"^ *Cost\b.*:", r"^ *(Result|Cost and result):")


def code_lines(text: str) -> Iterator[str]:
    """Yields the code lines of a Markdown text (indented or fenced); joins continued lines.

    Skips blocks marked as `console`, whose commands use a recipe or layout that the reader has just added to the program.
    """
    fence: str | None = None
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.lstrip().startswith("```"):
            fence = line.strip().strip("`") if fence is None else None
        elif fence != "console" and (fence is not None or line.startswith("    ")):
            yield line.strip().removeprefix("$ ").removeprefix(".venv/bin/")


def commands(lines: Iterator[str] | list[str], program: str = "tbps") -> list[list[str]]:
    """The arguments of every line that calls the program."""
    return [shlex.split(line, comments=True)[1:] for line in lines if re.match(rf"{program} [a-z-]", line)]


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Parameters of a `tbps` command. Raises if the command, an option or the number of arguments is wrong."""
    command: Any = get_command(app)
    context = typer.Context(command, info_name="tbps")
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        command = command.commands[name]
    return command.make_context(command.name, list(arguments), parent=context).params


def check(arguments: list[str]) -> None:
    """Asserts that a command parses, and that its data set, layout, recipe and settings exist."""
    if "--help" in arguments:
        arguments = arguments[: arguments.index("--help")]
        assert verb(arguments) is not None
        return
    given = parsed(arguments)
    if arguments[0] == "train" and not given["show_settings"]:  # the parser leaves both open for --show-settings
        assert given["data"] is not None and given["root"] is not None, f"{arguments} names no data set"
    if given.get("recipe") is not None:
        recipe(given["recipe"]).override(dict(change.split("=", 1) for change in given["change"] or []))
    for table in (given.get("names") or []) if arguments[0] == "study" else []:
        assert table == "all" or study_table(table).rows
    if "names" in given and given.get("change"):
        recipe("clip").override(dict(change.split("=", 1) for change in given["change"]))
    if given.get("data") is not None:
        assert given["data"] in names()
    if "layout" in given:
        assert given["layout"] in LAYOUTS


def verb(path: list[str]) -> Any:
    command: Any = get_command(app)
    for name in path:
        command = command.commands[name]
    return command


def verbs(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, found in (command or get_command(app)).commands.items():
        yield from verbs(found, (*path, name)) if hasattr(found, "commands") else [(*path, name)]


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_commands_in_documents(file: Path) -> None:
    found = commands(code_lines(file.read_text()))
    assert len(found) > 5 or file.name != "README.md" or file.parent != ROOT
    for arguments in found:
        check(arguments)


@pytest.mark.parametrize("path", list(verbs()), ids=" ".join)
def test_the_help_has_an_example_of_its_own_command(path: tuple[str, ...]) -> None:
    lines = [line.strip().removeprefix("Example:").strip().strip("`") for line in (verb(list(path)).help or "").splitlines()]
    found = commands(lines)
    assert found
    assert all(tuple(arguments[: len(path)]) == path for arguments in found)
    for arguments in found:
        check(arguments)


@pytest.mark.parametrize(
    "line",
    [
        "tbps nothing",
        "tbps train mannequin_start --data folder",
        "tbps train no_such_recipe --data folder --root x",
        "tbps train mannequin_start --data folder --root x --set no.such=1",
        "tbps train mannequin_start --data no-such-data --root x",
        "tbps data mannequins x --no-such-option 3",
        "tbps data mannequins x --layout no-such-layout",
        "tbps data mannequins x --train many",
        "tbps data mannequins x y",
    ],
)
def test_wrong_commands_are_found(line: str) -> None:
    # The last one is the base class of all usage errors.
    with pytest.raises((KeyError, SettingsError, AssertionError, typer.BadParameter.__mro__[1])):
        check(commands([line])[0])


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_scripts_and_make_targets_in_documents(file: Path) -> None:
    lines = list(code_lines(file.read_text()))
    for script, *options in commands(lines, "python"):
        if script == "-m":
            absent = [option for option in options if option.startswith("tests/") and not (ROOT / option).exists()]
            assert not absent, f"there is no {absent}"
            continue
        source = (ROOT / script).read_text()
        missing = [option for option in options if option.startswith("--") and f'"{option.split("=")[0]}"' not in source]
        assert not missing, f"{script} has no {missing}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for line in lines if line.startswith("make ") for name in line.split("#")[0].split()[1:]}
    assert named <= targets


def test_every_recipe_is_in_the_help_and_states_command_cost_and_result() -> None:
    train = verb(["train"])
    argument = next(parameter for parameter in train.params if parameter.name == "recipe")
    for name, make in RECIPES.items():
        assert re.search(rf"\b{name}\b", argument.help), f"the help of the argument does not name {name}"
        assert re.search(rf"\b{name}\b", train.help), f"the help of the command does not say what {name} is"
        text = make.__doc__ or ""
        lacking = [part for part in RECIPE_PARTS if not re.search(part, text, re.MULTILINE)]
        assert not lacking, f"{name} states nothing like {lacking}"
        (own,) = commands([line.strip().removeprefix("Command: ") for line in text.splitlines()])
        assert own[:2] == ["train", name]
        check(own)


@pytest.mark.parametrize(
    ("path", "parameter", "known"),
    [
        (("data", "mannequins"), "layout", list(LAYOUTS)),
        (("data", "check"), "name", names()),
        (("data", "describe"), "name", names()),
        *(((*path,), "data", names()) for path in (["train"], ["evaluate"], ["embed"], ["study", "run"], ["study", "diagnose"])),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_help_lists_every_data_set_and_layout(path: tuple[str, ...], parameter: str, known: list[str]) -> None:
    (found,) = [option for option in verb(list(path)).params if option.name == parameter]
    assert [name for name in known if not re.search(rf"\b{name}\b", found.help)] == []
