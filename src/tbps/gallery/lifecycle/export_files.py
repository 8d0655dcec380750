"""Writes the files of an export to a folder or a plain tar archive, and reads them from untrusted ones.

Nothing is unpacked to disk. Unknown file names, links, devices and compressed archives are refused. Sizes are checked before
anything is read.
"""

import io
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tbps.errors import DataError
from tbps.storage import atomic_path, make_folder, writing_to

Put = Callable[[str, bytes], None]  # writes a file of an export

MAX_FILE_BYTES = 256 * 2**20  # of one part's lines or embeddings, and of export.json
MAX_THUMBNAIL_BYTES = 2**18
MAX_FILES = 5_000_000
_NAME = re.compile(r"export\.json|rows-\d{5}\.jsonl|embeddings-\d{5}\.npy|thumbnails/\d{5}/[0-9a-f]{24}\.jpg")


@dataclass(frozen=True, slots=True)
class ExportFiles:
    """The files of an export. found: name -> offset in the archive (0 in a folder) and size."""

    place: Path
    found: Mapping[str, tuple[int, int]]

    def read(self, name: str) -> bytes:
        """Reads a file of the export. Raises DataError when it is missing, truncated or too large."""
        if name not in self.found:
            raise DataError(f"export {self.place} is incomplete: {name} is missing")
        offset, size = self.found[name]
        limit = MAX_THUMBNAIL_BYTES if name.startswith("thumbnails/") else MAX_FILE_BYTES
        if size > limit:
            raise DataError(f"export {self.place}: {name} has {size:,} bytes, more than {limit:,}")
        archive = self.place.is_file()
        with (self.place if archive else self.place / name).open("rb") as file:
            file.seek(offset)
            content = file.read(size)
        if len(content) != size:
            raise DataError(f"export {self.place} is cut off in {name}")
        return content


def open_export(place: Path) -> ExportFiles:
    """Lists the files of an export. Raises DataError when there is none, or when it holds any other file."""
    if place.is_dir():
        names = _folder_files(place)
    elif place.is_file():
        names = _archive_files(place)
    else:
        raise DataError(f"there is no export at {place}; make one with: tbps gallery export GALLERY {place}")
    found: dict[str, tuple[int, int]] = {}
    for name, where in names:
        if not _NAME.fullmatch(name):
            raise DataError(f"export {place} holds {name[:200]!r}, which is not a file of an export; it is refused as a whole")
        if name in found or len(found) == MAX_FILES:
            what = f"{name} twice" if name in found else f"more than {MAX_FILES:,} files"
            raise DataError(f"export {place} holds {what}; it is refused as a whole")
        found[name] = where
    return ExportFiles(place, found)


@contextmanager
def new_export(target: Path) -> Iterator[Put]:
    """Context manager that yields a function to write the files of an export; renames the export to `target` at the end."""
    if target.suffix == ".tar":
        with atomic_path(target) as file, tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:

            def add(name: str, content: bytes) -> None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

            yield add
        return
    begun = target.with_name(f".{target.name}.part")
    shutil.rmtree(begun, ignore_errors=True)
    make_folder(begun)

    def write(name: str, content: bytes) -> None:
        (begun / name).parent.mkdir(parents=True, exist_ok=True)
        (begun / name).write_bytes(content)

    try:
        with writing_to(target.parent):
            yield write
            begun.rename(target)
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _folder_files(place: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for parent, folders, names in os.walk(place):
        for name in (*names, *(folder for folder in folders if (Path(parent) / folder).is_symlink())):
            file = Path(parent) / name
            if file.is_symlink() or not file.is_file():
                raise DataError(
                    f"export {place} holds {file.relative_to(place)}, which is not a plain file; it is refused as a whole"
                )
            yield file.relative_to(place).as_posix(), (0, file.stat().st_size)


class _Bounded(io.FileIO):
    """A file that refuses large reads, whatever size the header of an archive member states."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_FILE_BYTES:
            raise tarfile.ReadError(f"{size} bytes asked for at once")
        return super().read(size)


def _archive_files(place: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        with _Bounded(place) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps all of them
                if not member.isreg() or member.issparse():
                    raise DataError(
                        f"export {place} holds {member.name[:200]!r}, which is not a plain file; it is refused as a whole"
                    )
                yield member.name, (member.offset_data, member.size)
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        raise DataError(
            f"export {place} is not a plain tar archive, or is damaged ({error}); compressed ones are not read"
        ) from error
