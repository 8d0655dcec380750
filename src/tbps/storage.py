"""Atomic file writes: after a crash or on a full disk, a file is either complete or absent."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tbps.errors import StorageError

_BLOCK = 2**20

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Converts operating system errors while writing below `folder` into a StorageError that names the folder and a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(f"the disk of {folder} is full; no partial file was kept; free space and run again") from error
        if error.errno in _REFUSED:
            raise StorageError(
                f"{folder} cannot be written ({error.strerror}); choose another folder or its permissions"
            ) from error
        if isinstance(error, FileNotFoundError | FileExistsError | NotADirectoryError):
            raise  # callers handle these
        raise StorageError(f"{folder} cannot be written ({error.strerror or error}); choose another folder") from error


def make_folder(folder: Path) -> Path:
    """Creates `folder` and its parents and returns it. Raises StorageError where that fails."""
    with writing_to(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StorageError(f"{folder} must be a folder, but a file with that name exists; move it away") from error
        except FileNotFoundError as error:
            raise StorageError(f"{folder} cannot be created ({error.strerror}); choose another folder") from error
    return folder


@contextmanager
def atomic_path(target: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yields a temporary path beside `target`, which is flushed to disk and renamed to `target` at the end of the block.

    After an error the temporary file is removed and `target` is left unchanged.
    """
    make_folder(target.parent)
    with writing_to(target.parent):
        if target.exists() and not (target.is_file() or target.is_dir()):  # the rename would replace /dev/null by a file
            raise StorageError(f"{target} is a device, pipe or socket and would be replaced by a file; give the path of a file")
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.chmod(mode)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(target: Path, content: bytes, mode: int = 0o644) -> None:
    """Writes `content` to `target` atomically. Raises StorageError on a full or read-only disk."""
    with atomic_path(target, mode) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Writes UTF-8 text to `target` atomically. Raises StorageError on a full or read-only disk."""
    write_bytes(target, content.encode())


def file_hash(path: Path) -> str:
    """SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
