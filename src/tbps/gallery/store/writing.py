"""How every process writes to a gallery: under the lock, on a folder without leftovers, after any erasure that has begun."""

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
    """The gallery's lock, with everything set right that a killed process left."""
    with lock(make_folder(folder), patience):
        sweep(folder)
        complete(folder)
        yield


def complete_begun(folder: Path) -> None:
    """Completes an erasure whose process was killed; one that a living process holds is left to it.

    Raises StorageError where the disk is full or read-only: what is being erased must not be shown.
    """
    if begun(folder):
        with suppress(BusyError), writing(folder, patience=0):
            pass
