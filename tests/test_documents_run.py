"""Runs the commands of the first tutorial and the Python program of the README unchanged, in order, in one folder."""

import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbps.cli import main

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs/tutorials/find-people.md"
IN_THE_BACKGROUND = ("serve",)  # not run, because a service does not end by itself


def commands(text: str) -> Iterator[list[str]]:
    """Arguments of every `tbps` command in code blocks marked as `sh`."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "tbps", f"{line!r} is no tbps command; mark the block as text"
            yield arguments


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder that contains the bundled model."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TBPS_MODEL", raising=False)
    return tmp_path


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command."""
    monkeypatch.setattr(sys, "argv", ["tbps", *arguments])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.mark.slow
def test_the_first_tutorial(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in commands(TUTORIAL.read_text()):
        if arguments[0] not in IN_THE_BACKGROUND:
            assert run(arguments, monkeypatch) == 0, f"{arguments}: {capsys.readouterr().err}"
    assert (place / "hits.png").is_file()
    images = len(list((place / "people/images").iterdir()))
    assert f"writes {images} crops of 60 people" in TUTORIAL.read_text()
    # The program of the README searches crops of people in `photos`, such as these.
    (place / "people").rename(place / "photos")
    (program,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    found: dict[str, object] = {}
    capsys.readouterr()
    exec(compile(program, "README.md", "exec"), found)  # the program comes from the repository
    assert len(capsys.readouterr().out.splitlines()) == 10
    assert len(found["page"].hits) == 5  # type: ignore[attr-defined]
