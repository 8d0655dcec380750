"""Exclusive locks of a running service on its gallery and its state folder.

The lock is `flock` on the descriptor of the folder itself: it also works for a read-only gallery, there is no lock file that could
be removed while it is held, and the system releases it however the process ends. If the file system cannot lock folders (NFS), a
file in the folder is locked. A file beside the lock describes the process that holds it, for the error message of another service.
"""

import errno
import json
import os
import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import final

from tbps.errors import SettingsError, StorageError
from tbps.locks import acquire
from tbps.server.state.layout import INFO_FILE, SERVICE_LOCK
from tbps.storage import write_bytes

GALLERY_INFO = ".service.json"
_TRIES, _PAUSE = 20, 0.05  # a killed process holds its locks until its memory is freed
_UNSUPPORTED = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.EISDIR}


@final
class Claim:
    """Locks of one service on a gallery and a state folder, held from `take` to `release`."""

    def __init__(self, gallery: Path, state: Path) -> None:
        self._gallery, self._state = gallery, state
        self._held: list[int] = []

    def take(self) -> None:
        """Acquire both locks. Raises SettingsError if another service holds one of them, StorageError if writing fails."""
        if self._held:
            return
        try:
            for folder, what, info in ((self._gallery, "gallery", GALLERY_INFO), (self._state, "state folder", INFO_FILE)):
                if (held := _locked(folder)) is None:
                    raise SettingsError(
                        f"{what} {folder} is in use by another service ({_holder(folder / info)}); stop or use that service"
                    )
                self._held.append(held)
            self._write_holder()
        except BaseException:
            self._unlock()
            raise

    def release(self) -> None:
        """Release both locks."""
        if self._held:
            for file in self._infos():
                try:
                    file.unlink(missing_ok=True)
                except OSError:  # the disk became read-only; only the lock matters
                    continue
            self._unlock()

    def _infos(self) -> Sequence[Path]:
        return self._state / INFO_FILE, self._gallery / GALLERY_INFO

    def _write_holder(self) -> None:
        facts = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "gallery": os.path.realpath(self._gallery),
            "state": os.path.realpath(self._state),
        }
        content = (json.dumps(facts, indent=1) + "\n").encode()
        own, gallery = self._infos()
        write_bytes(own, content, mode=0o600)
        try:
            write_bytes(gallery, content)
        except StorageError:  # a read-only gallery can be served too
            return

    def _unlock(self) -> None:
        while self._held:
            os.close(self._held.pop())


def _locked(folder: Path) -> int | None:
    """Descriptor that holds the lock of a folder, or None if another process holds it."""
    for _ in range(_TRIES):
        try:
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise StorageError(f"{folder} cannot be opened ({error.strerror}); look at its permissions") from error
        try:
            if acquire(held, patience=0):
                return held
            os.close(held)
        except OSError as error:
            os.close(held)
            if error.errno not in _UNSUPPORTED:
                raise StorageError(f"{folder} cannot be locked ({error.strerror}); put it on another file system") from error
            if (held_file := _locked_file(folder / SERVICE_LOCK)) is not None:
                return held_file
        time.sleep(_PAUSE)
    return None


def _locked_file(file: Path) -> int | None:
    try:
        held = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StorageError(f"{file} cannot be created ({error.strerror}); look at the permissions of its folder") from error
    try:
        if acquire(held, patience=0):
            return held
    except OSError as error:
        os.close(held)
        raise StorageError(f"{file} cannot be locked ({error.strerror}); put its folder on another file system") from error
    os.close(held)
    return None


def _holder(info: Path) -> str:
    """Description of the process that holds a lock, read from the file that it wrote."""
    try:
        found = json.loads(info.read_text(encoding="utf-8"))
        return f"process {int(found['pid'])} on {str(found['host'])[:100]!r} since {str(found['since'])[:40]}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
