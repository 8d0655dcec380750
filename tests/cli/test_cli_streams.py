"""Output to closed streams, full disks and ended readers, and in encodings that lack a character."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.main import get_command

from tbps.cli import app
from tbps.cli.streams import CLOSED_PIPE
from tbps.server import Keys, state_folder

MODEL = Path(__file__).parents[2] / "models/mannequin-tiny"
CAMERA = "Türe 読 😀"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gallery of two images whose camera and file names have characters outside ASCII and Latin-1."""
    import tbps

    folder = tmp_path_factory.mktemp("streams")
    for number, colour in enumerate(("red", "blue")):
        Image.new("RGB", (40, 90), colour).save(folder / f"読{number}.png")
    made = tbps.Gallery.open(folder / "gallery", tbps.load(MODEL))
    made.add(sorted(folder.glob("*.png")), [{"camera": CAMERA}] * 2)
    return folder / "gallery"


def tbps_run(*arguments: object, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a `tbps` command in a separate process; `shell`: redirections."""
    command = [sys.executable, "-m", "tbps.cli", *map(str, arguments)]
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {shell}', "bash", *command],
        capture_output=True,
        env={**os.environ, **environment},
        encoding="utf-8",
        errors="surrogateescape",
        timeout=300,
        check=False,
    )


def paths_of(command: object, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yields the path of names of every command and group."""
    yield names
    for name, inner in getattr(command, "commands", {}).items():
        yield from paths_of(inner, (*names, name))


COMMANDS = list(paths_of(get_command(app)))


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_h_shows_the_help_of_every_command(names: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for option in ("-h", "--help"):
        with pytest.raises(SystemExit) as ended:
            app([*names, option], prog_name="tbps")
        assert not ended.value.code
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "Usage: " + " ".join(["tbps", *names]) in shown[0]


@pytest.mark.parametrize("before", [[], ["GALLERY"], ["GALLERY", "a woman"], ["GALLERY", "-hat"]])
@pytest.mark.parametrize("verb", ["search", "explain"])
def test_h_shows_help_behind_other_arguments(verb: str, before: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app([verb, *before, "-h"])
    assert not ended.value.code
    assert "--model" in capsys.readouterr().out


def test_arguments_with_a_leading_minus(gallery: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    _, shown, _ = run("search", gallery, "a red coat", "-hat", "-k1", "--json")
    (avoided,) = json.loads(shown)
    assert avoided["query"] == "a red coat, -hat" and len(avoided["hits"]) == 1
    for arguments in (["-backpack", gallery], [gallery, "a red coat", "-q"], ["-", gallery]):
        code, _, messages = run("search", *arguments)
        assert code == 2
        assert "null byte" not in messages and "Traceback" not in messages


@pytest.mark.parametrize(
    "encoding",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"PYTHONIOENCODING": "cp1252"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "latin-1", "cp1252", "POSIX"],
)
def test_names_that_an_encoding_lacks_are_printed_as_escapes(gallery: Path, encoding: dict[str, str]) -> None:
    wide = {**encoding, "COLUMNS": "300"}
    done = tbps_run("search", gallery, "a woman", **wide)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert r"\u8aad0.png" in done.stdout and r"\u8aad \U0001f600" in done.stdout
    assert "+--" in done.stdout.replace("-+-", "+--") and r"\u2500" not in done.stdout  # tables have ASCII borders
    done = tbps_run("search", "none-読" if "PYTHONIOENCODING" in encoding else "none", "a woman", **wide)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert r"none-\u8aad" in done.stderr or "PYTHONIOENCODING" not in encoding
    assert tbps_run("search", "--help", **wide).returncode == 0


# Commands that write in different ways: help, an option of the program, typer.echo, and rich, which flushes within the command.
PRINTING = [
    ["--help"],
    ["--version"],
    ["search", "GALLERY", "a woman", "--json"],
    ["keys", "list", "GALLERY"],
]


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
@pytest.mark.parametrize(("shell", "code"), [(">/dev/full", 2), (">&-", 2), ("| true", CLOSED_PIPE)])
def test_standard_output_that_cannot_be_written(gallery: Path, arguments: list[str], shell: str, code: int) -> None:
    done = tbps_run(*(str(gallery) if part == "GALLERY" else part for part in arguments), shell=shell)
    if shell == "| true" and not done.returncode:  # short output may be written before the reader ends
        assert arguments == ["--version"] or done.stderr == ""
        return
    assert done.returncode == code
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(lines) == (1 if code == 2 else 0), done.stderr
    if code == 2:
        assert re.match(r"error: standard output (is closed|cannot be written \(No space left on device\))", lines[0])


def test_standard_error_that_cannot_be_written_does_not_end_the_command(gallery: Path) -> None:
    for shell in ("2>/dev/full", "2>&-"):
        done = tbps_run("search", gallery, "long " * 200, "--json", shell=shell)
        assert done.returncode == 0 and len(json.loads(done.stdout)[0]["hits"]) == 2


def test_a_key_that_could_not_be_printed_is_not_stored(
    gallery: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    copy = shutil.copytree(gallery, tmp_path / "gallery")
    assert tbps_run("keys", "add", copy, "front desk", shell=">/dev/full").returncode == 2
    assert Keys(state_folder(copy)).all() == ()
    assert run("keys", "add", copy, "front desk")[0] == 0


def test_devices_and_pipes_are_not_replaced_by_files(
    gallery: Path, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "full.png").symlink_to("/dev/full")
    for name in ("pipe.png", "full.png"):
        code, _, messages = run("search", gallery, "a woman", "--sheet", tmp_path / name)
        assert code == 2
        assert "is a device, pipe or socket" in messages and len(messages.splitlines()) == 1
    assert (tmp_path / "pipe.png").is_fifo() and Path("/dev/full").is_char_device()


def test_file_names_that_the_locale_cannot_encode_are_an_error_with_advice(tmp_path: Path) -> None:
    Image.new("RGB", (40, 90)).save(tmp_path / "読.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "読.png"}) + "\n")
    posix = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = tbps_run("index", tmp_path, "--gallery", tmp_path / "gallery", "--model", MODEL, **posix)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or "PYTHONUTF8=1" in done.stderr.splitlines()[-1]


def test_windows_is_refused_in_one_line() -> None:
    """Windows is simulated by changing `os.name` after the import."""
    start = "import os, sys; from tbps.cli import main; os.name = 'nt'; sys.argv = ['tbps', 'doctor']; main()"
    done = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert "WSL" in done.stderr and len(done.stderr.splitlines()) == 1
    use = "import os, tbps; os.name = 'nt'; tbps.load"
    done = subprocess.run([sys.executable, "-c", use], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("tbps.errors.UnsupportedSystemError: tbps does not run on Windows")
