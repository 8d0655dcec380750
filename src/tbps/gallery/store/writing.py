"""Write access to a gallery: takes the lock, deletes leftovers of killed processes, completes an interrupted erasure."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tbps.errors import BusyError
from tbps.gallery.store.erasure import begun, complete
from tbps.gallery.store.layout import sweep
from tbps.gallery.store.lock import PATIENCE, lock
from tbps.storage import make_folder


@contextmanager
def writing(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Holds the gallery's lock, after cleaning up after killed processes. Raises as `lock`."""
    with lock(make_folder(folder), patience):
        sweep(folder)
        complete(folder)
        yield


def complete_begun(folder: Path) -> None:
    """Completes an erasure whose process was killed; does nothing if another process holds the lock.

    Raises StorageError if the disk is full or read-only, since rows of an unfinished erasure must not be shown.
    """
    if begun(folder):
        with suppress(BusyError), writing(folder, patience=0):
            pass
