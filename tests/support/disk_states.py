"""Copies of a folder before every file-system call of this process: the states that a kill -9 could leave.

A killed process loses nothing that it has written to files, so a copy equals the state after a kill at that moment. No copy is made
if nothing has changed since the last one; while a folder is removed recursively, there is one copy per subfolder.
"""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_STEPS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree", "shutil.copyfile"}
_recording: list["DiskStates"] = []


class DiskStates:
    """Recorder of the copies. `states`: folders of the copies, in order of time."""

    def __init__(self, folder: Path, into: Path) -> None:
        self.states: list[Path] = []
        self._folder, self._into, self._busy, self._last = folder, into, False, b""

    def look(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Copy the folder if the audit event changes it."""
        path, within = arguments[0], event == "os.rmdir" and arguments[-1] not in (-1, None)
        reads = event == "open" and not (isinstance(arguments[1], str) and set("wax+") & set(arguments[1]))
        if self._busy or reads or not (within or str(path).startswith(f"{self._folder}/")):
            return
        self._busy = True
        if (now := _digest(self._folder)) != self._last:
            self.states.append(Path(shutil.copytree(self._folder, self._into / f"{len(self.states):04d}")))
        self._busy, self._last = False, now


def _digest(folder: Path) -> bytes:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.digest()


@contextmanager
def recording(folder: Path, into: Path) -> Iterator[DiskStates]:
    """Record copies of `folder` as numbered folders in `into` while the block runs."""
    states = DiskStates(folder, into)
    _recording.append(states)
    try:
        yield states
    finally:
        _recording.remove(states)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _recording and event in _STEPS:
        _recording[-1].look(event, arguments)


sys.addaudithook(_hook)
