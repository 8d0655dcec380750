"""Every error is one clear line on standard error and exit code 2; --debug adds the traceback. Documents name real commands."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from tbps.cli import app, main

ROOT = Path(__file__).parents[2]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tbps", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nowhere", "--data", "folder", "--root", "{tmp}"], "metadata"),
        (["evaluate"], "--embeddings"),
        (["evaluate", "--embeddings", "{tmp}/none.safetensors"], "tbps embed"),
        (["train", "tbps_klip", "--data", "folder", "--root", "{tmp}", "--out", "{tmp}/run"], "simplified_tbps_clip"),
        (
            ["train", "mannequin_tiny", "--data", "folder", "--root", "{tmp}", "--out", "{tmp}/run", "--set", "schedule.epoch=3"],
            "schedule.epochs",
        ),
        (["train", "mannequin_tiny", "--data", "folder", "--root", "{tmp}", "--out", "{tmp}/run", "--set", "seed"], "no '='"),
        (["search", "{tmp}/none", "a woman"], "tbps index"),
        (["data", "check", "folder", "{tmp}"], "metadata"),
        (["data", "check", "cuhk", "{tmp}"], "cuhk-pedes"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert call(monkeypatch, *(part.replace("{tmp}", str(tmp_path)) for part in arguments)) == 2
    written = capfd.readouterr().err.strip()
    assert written.startswith("error: ") and len(written.splitlines()) == 1
    assert message in written


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call(monkeypatch, "--debug", "evaluate", "--embeddings", str(tmp_path / "none")) == 2
    assert "Traceback" in capfd.readouterr().err


def commands(text: str) -> list[list[str]]:
    """Every line of a document that starts with `tbps`, options continued over a backslash joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = [line.strip().removeprefix("Example:").strip().strip("`") for line in joined.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if re.match(r"tbps [a-z]", line)]


def parses(arguments: list[str]) -> None:
    """Raises when the command or one of its options does not exist. Nothing is run."""
    command, name = get_command(app), "tbps"
    context = typer.Context(command, info_name=name)
    while hasattr(command, "commands") and arguments:
        name, *arguments = arguments
        command = command.commands[name]
    command.make_context(name, arguments, parent=context)


def test_the_readme_names_real_commands() -> None:
    found = commands((ROOT / "README.md").read_text())
    assert len(found) > 5
    for arguments in found:
        parses(arguments)


def test_every_help_text_has_a_working_example() -> None:
    group = get_command(app)
    verbs = [*group.commands.items(), *group.commands["data"].commands.items()]
    for name, command in verbs:
        if hasattr(command, "commands"):
            continue
        found = commands(command.help or "")
        assert found, f"the help of {name} has no example"
        for arguments in found:
            parses(arguments)
