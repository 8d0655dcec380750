"""The lock of a gallery: one writer at a time, for the duration of one commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tbps.errors import BusyError
from tbps.locks import acquire
from tbps.storage import writing_to

LOCK_FILE = ".lock"
PATIENCE = 600.0


@contextmanager
def lock(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Holds the exclusive lock of a gallery, between processes and between threads.

    Raises BusyError if others hold it for more than `patience` seconds, StorageError if the folder cannot be written.
    """
    with writing_to(folder), (folder / LOCK_FILE).open("ab") as file:
        if not acquire(file.fileno(), patience):
            raise BusyError(f"another process is writing to gallery {folder} (waited {patience:g} s); run again when it is done")
        yield
