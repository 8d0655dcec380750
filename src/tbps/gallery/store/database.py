"""Imports LanceDB, and converts its errors to errors of this package."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("LANCE_LOG", "error")  # read once, when lancedb is imported

import lancedb

from tbps.errors import GalleryError, StorageError

__all__ = ["lancedb", "talking_to"]

_FULL = re.compile(r"\(os error (28|122|27)\)")  # no space, quota, file too large
_REFUSED = re.compile(r"\(os error (1|13|30)\)")  # not permitted, permission denied, read-only
# Errors of lancedb 0.40 on files that are missing, truncated or overwritten, found by damaging files at random. Its other errors
# concern the arguments of a call ("Invalid input, Schema error", "lance error: Commit conflict"); they would be bugs of ours.
_DAMAGED = re.compile(
    r"lance error: (?:Not found|Encountered corrupt file|LanceError\(IO\)|LanceError\(Arrow\): (?:Parser|Io) error)"
    r"|Invalid input, (?:column metadata r|Global buffer|Tail read position|Invalid direct PageLayout|file does not appear to be)"
    r"|Table '.*' was not found"
)


@contextmanager
def talking_to(folder: Path) -> Iterator[None]:
    """Turns the database's errors about files into StorageError or GalleryError that name `folder`; leaves others as they are."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise StorageError(f"the path of gallery {folder} is not UTF-8 text, which the database needs; choose another") from error
    except (RuntimeError, OSError, ValueError) as error:
        text = str(error)
        if _FULL.search(text):
            raise StorageError(
                f"the disk of gallery {folder} is full; every image committed so far is kept; free space and run again"
            ) from error
        if _REFUSED.search(text):
            raise StorageError(
                f"gallery {folder} cannot be written; check that the disk is writable and its permissions"
            ) from error
        if not _DAMAGED.match(text):
            raise
        reason = text.partition("\n")[0][:300]
        raise GalleryError(f"gallery {folder} is damaged ({reason}); restore it, or index again into a new folder") from error
