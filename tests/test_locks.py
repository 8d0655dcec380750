"""Locks between processes and threads."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbps.locks import acquire

SOURCE = Path(__file__).parents[1] / "src" / "tbps"
HOLD = """
import sys
from tbps.locks import acquire
file = open(sys.argv[1], "ab")
acquire(file.fileno())
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that holds the lock of the file `lock`."""
    command = [sys.executable, "-c", HOLD, tmp_path / "lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        yield process
        process.kill()


@pytest.mark.parametrize("patience", [0, 0.05])
def test_a_lock_is_refused_while_another_process_holds_it_and_free_after_its_kill(
    holder: "subprocess.Popen[bytes]", tmp_path: Path, patience: float
) -> None:
    with (tmp_path / "lock").open("ab") as file:
        assert not acquire(file.fileno(), patience)
        holder.kill()
        holder.wait()
        assert acquire(file.fileno(), patience)


@pytest.mark.parametrize("patience", [60.0, float("inf")])
def test_waiting_for_a_lock_ends_when_its_holder_ends(holder: "subprocess.Popen[bytes]", tmp_path: Path, patience: float) -> None:
    with (tmp_path / "lock").open("ab") as file:
        assert not acquire(file.fileno(), 0)
        assert holder.stdin is not None
        holder.stdin.close()
        assert acquire(file.fileno(), patience)


def test_two_open_files_in_one_process_exclude_each_other(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("ab") as one, (tmp_path / "lock").open("ab") as other:
        assert acquire(one.fileno()) and not acquire(other.fileno(), 0)


def test_a_folder_can_be_locked_although_nothing_is_written_to_it(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    assert acquire(descriptor, 0)
    os.close(descriptor)
    assert not list(tmp_path.iterdir())


def test_only_one_module_implements_locks() -> None:
    assert [
        file.name for file in SOURCE.rglob("*.py") if ".flock(" in file.read_text() or "import filelock" in file.read_text()
    ] == ["locks.py"]
