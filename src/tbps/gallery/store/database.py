"""LanceDB, and its errors in the project's words."""

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


@contextmanager
def talking_to(folder: Path) -> Iterator[None]:
    """The database's errors as StorageError or GalleryError naming `folder`."""
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
        reason = text.partition("\n")[0][:300]
        raise GalleryError(f"gallery {folder} is damaged ({reason}); restore it, or index again into a new folder") from error
