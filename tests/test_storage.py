"""Atomic writes: a file is complete or absent."""

import subprocess
import sys
from pathlib import Path

import pytest

from tbps.errors import StorageError
from tbps.storage import atomic_path, make_folder, write_bytes, write_text


def test_a_failed_write_keeps_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_parent_folders_are_created_and_content_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "x" / "y" / "a.bin"
    write_bytes(target, b"1")
    write_bytes(target, b"22")
    assert target.read_bytes() == b"22"


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(StorageError, match="a file with that name exists"):
        make_folder(tmp_path / "f")
    with pytest.raises(StorageError, match="a file with that name exists"):
        write_text(tmp_path / "f" / "g", "x")


def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; from pathlib import Path; from tbps.storage import write_bytes, write_text\n"
        "from tbps.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); target = Path(sys.argv[1]); write_text(target, 'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_bytes(target, b'x' * 5000)\n"
        "except StorageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], capture_output=True, text=True, check=True)
    assert "full" in done.stdout
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
