"""One writer at a time, held for one commit: further writers wait for their turn."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tbps.errors import BusyError
from tbps.storage import writing_to

LOCK_FILE = ".lock"
PATIENCE = 600.0
_LOOK_AGAIN = 0.01


@contextmanager
def lock(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Held by the one process (or thread) that writes to a gallery; the system releases it however that process ends.

    Raises BusyError when others hold it for more than `patience` seconds, StorageError where the folder cannot be written.
    """
    with writing_to(folder), (folder / LOCK_FILE).open("ab") as file:
        give_up = time.monotonic() + patience
        while not _taken(file.fileno()):
            if time.monotonic() >= give_up:
                raise BusyError(
                    f"another process is writing to gallery {folder} (waited {patience:g} s); run again when it is done"
                )
            time.sleep(_LOOK_AGAIN)
        yield


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
