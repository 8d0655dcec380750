"""One service per gallery and per state folder: locks that the system releases however a process ends.

Locked is each folder itself (`flock` on its descriptor), so that a service that may only read a gallery locks it too, and no lock
file can be removed while it is held. Where a file system refuses that (NFS), a file in the folder is locked. Which process holds a
lock is written beside it, for the message to the next one.
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
from tbps.server.state_layout import INFO_FILE, SERVICE_LOCK
from tbps.storage import write_bytes

GALLERY_INFO = ".service.json"
_LOOKS, _PAUSE = 20, 0.05  # a process that was killed a moment ago may hold its locks until its memory is freed
_UNSUPPORTED = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP, errno.EISDIR}


@final
class Claim:
    """The right to serve a gallery with a state folder, from `take` to `release`."""

    def __init__(self, gallery: Path, state: Path) -> None:
        self._gallery, self._state = gallery, state
        self._held: list[int] = []

    def take(self) -> None:
        """Raises SettingsError where another service holds the gallery or the state folder, StorageError where writing fails."""
        if self._held:
            return
        try:
            for folder, what, info in ((self._gallery, "gallery", GALLERY_INFO), (self._state, "state folder", INFO_FILE)):
                if (held := _locked(folder)) is None:
                    raise SettingsError(
                        f"{what} {folder} is served already, by {_holder(folder / info)}; stop that service first, or ask it"
                    )
                self._held.append(held)
            self._tell()
        except BaseException:
            self._unlock()
            raise

    def release(self) -> None:
        """Lets others serve."""
        if self._held:
            for file in self._infos():
                try:
                    file.unlink(missing_ok=True)
                except OSError:  # a disk that became read-only; the lock is what counts
                    continue
            self._unlock()

    def _infos(self) -> Sequence[Path]:
        return self._state / INFO_FILE, self._gallery / GALLERY_INFO

    def _tell(self) -> None:
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
        except StorageError:  # a gallery that may only be read is searched all the same
            return

    def _unlock(self) -> None:
        while self._held:
            os.close(self._held.pop())


def _locked(folder: Path) -> int | None:
    """The descriptor that holds the lock of a folder; None where another process holds it."""
    for _ in range(_LOOKS):
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
        raise StorageError(f"{file} cannot be made ({error.strerror}); look at the permissions of its folder") from error
    try:
        if acquire(held, patience=0):
            return held
    except OSError as error:
        os.close(held)
        raise StorageError(f"{file} cannot be locked ({error.strerror}); put its folder on another file system") from error
    os.close(held)
    return None


def _holder(info: Path) -> str:
    """The process that holds a lock, as it told of itself."""
    try:
        found = json.loads(info.read_text(encoding="utf-8"))
        return f"process {int(found['pid'])} on {str(found['host'])[:100]!r} since {str(found['since'])[:40]}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
