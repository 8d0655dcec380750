"""Distinguishes a damaged gallery from one that another process changed while it was read, and retries in the latter case.

Readers take no lock. A writer may remove the files of the version that a reader has open: when it compacts, erases images, restores
a snapshot or switches to another model. To the reader that looks like damage. So the state of the gallery when the reader opened it
is compared with its present state: if they differ, the version is stale, and the newest one is read instead.
"""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from tbps.errors import GalleryError, StaleVersionError

_P = ParamSpec("_P")
_T = TypeVar("_T")

State = frozenset[tuple[str, int, int]]

TRIES = 20  # with a writer that compacts without a pause, two versions in a row may be gone before they are read


def state_of(folder: Path) -> State:
    """Path, inode and modification time of the manifests, the table versions and the erasure file, snapshots included."""
    files = [*folder.glob("*.json"), *folder.glob("*.lance/_versions/*")]
    files += [*folder.glob("snapshots/*/*.json"), *folder.glob("snapshots/*/*.lance/_versions/*")]
    found = set()
    for file in files:
        with suppress(FileNotFoundError, NotADirectoryError):
            facts = os.stat(file)
            found.add((str(file), facts.st_ino, facts.st_mtime_ns))
    return frozenset(found)


@contextmanager
def reading(folder: Path, opened: State | None = None) -> Iterator[None]:
    """Raises StaleVersionError instead of GalleryError if the gallery has changed since it was opened.

    opened: the state of the gallery when it was opened; None for the state at the start of the block.
    """
    before = state_of(folder) if opened is None else opened
    try:
        yield
    except StaleVersionError:
        raise
    except GalleryError as error:
        check_newest(folder, before, error)
        raise


def check_newest(folder: Path, opened: State, cause: GalleryError | None = None) -> None:
    """Raises StaleVersionError if the gallery has changed since it was opened."""
    if state_of(folder) != opened:
        raise StaleVersionError(f"gallery {folder} was changed by another process while it was read; try again") from cause


def read_again(read: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorator for a function that reads the newest version: calls it again if that version became stale, at most 20 times."""

    @functools.wraps(read)
    def read_newest(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        for _ in range(TRIES - 1):
            with suppress(StaleVersionError):
                return read(*args, **kwargs)
        return read(*args, **kwargs)

    return read_newest
