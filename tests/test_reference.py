"""The generated reference pages hold every command, option, setting and route, and their links have targets."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command

from tbps.cli import app
from tbps.server.settings import ServiceSettings
from tbps.training.settings import TrainSettings

SCRIPT = Path(__file__).parents[1] / "docs/generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The module docs/generate.py, which writes the pages."""
    spec = importlib.util.spec_from_file_location("generate", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sections(text: str) -> dict[str, str]:
    """The text below each heading of a page."""
    parts = re.split(r"^##+ (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(command: Any, name: str = "tbps") -> dict[str, Any]:
    """Every command of a group by its whole name."""
    if not hasattr(command, "commands"):
        return {name: command}
    return {key: found for part, child in command.commands.items() for key, found in commands(child, f"{name} {part}").items()}


def test_the_command_line_is_complete(generate: ModuleType) -> None:
    found = sections("\n".join(generate.command_line()))
    every = commands(get_command(app))
    assert found.keys() == every.keys()
    for name, command in every.items():
        for option in [name for param in command.params for name in param.opts if name.startswith("--") and name != "--help"]:
            assert re.search(rf"^\| `[^`]*{option}\b", found[name], re.MULTILINE), f"{name} lacks {option}"


def test_the_settings_are_complete(generate: ModuleType) -> None:
    found = sections("\n".join(generate.settings()))
    for title, kind in (("Training", TrainSettings), ("The service", ServiceSettings)):
        keys = kind.dotted()
        leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
        missing = [key for key in leaves if f"| `{key}` |" not in found[title]]
        assert leaves and not missing, f"{title}: {missing}"


def test_the_routes_are_complete_and_linked(generate: ModuleType) -> None:
    text = "\n".join(generate.http_api())
    found = sections(text)
    assert {"POST /v1/search", "GET /v1/images/{id}", "POST /v1/index", "POST /v1/forget", "GET /healthz"} <= found.keys()
    named = {heading.lower() for heading in found}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= named


def test_markdown_characters_in_help_texts_are_escaped(generate: ModuleType) -> None:
    lines = generate._table(("a", "b"), [("`x|y`", "a < b and `c*d`\n* e")])
    assert list(lines)[2] == r"| `x\|y` | a \< b and `c*d` \* e |"
