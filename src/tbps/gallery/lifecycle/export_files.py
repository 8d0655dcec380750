"""The files of an export that is not trusted, in a folder or a plain tar: found first, then read, each bounded before it is read.

Nothing is unpacked to disk; names that no export has, links, devices and packed archives are refused.
"""

import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tbps.errors import DataError

MAX_FILE_BYTES = 256 * 2**20  # of one part's lines or embeddings, and of export.json
MAX_THUMBNAIL_BYTES = 2**18
MAX_FILES = 5_000_000
_NAME = re.compile(r"export\.json|rows-\d{5}\.jsonl|embeddings-\d{5}\.npy|thumbnails/\d{5}/[0-9a-f]{24}\.jpg")


@dataclass(frozen=True, slots=True)
class Source:
    """An export by its files: where each lies in an archive, or that it is there in a folder."""

    place: Path
    found: Mapping[str, tuple[int, int]]  # name -> offset and size

    def read(self, name: str) -> bytes:
        """Raises DataError where the file is missing, cut off or too large."""
        if name not in self.found:
            raise DataError(f"export {self.place} is not whole: {name} is missing")
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


def open_source(place: Path) -> Source:
    """Raises DataError where there is none, or it holds what no export does."""
    if place.is_dir():
        names = _folder_files(place)
    elif place.is_file():
        names = _archive_files(place)
    else:
        raise DataError(f"there is no export at {place}; make one with: tbps gallery export GALLERY {place}")
    found: dict[str, tuple[int, int]] = {}
    for name, where in names:
        if not _NAME.fullmatch(name):
            raise DataError(f"export {place} holds {name[:200]!r}, which no export does; it is refused as a whole")
        if name in found or len(found) == MAX_FILES:
            what = f"{name} twice" if name in found else f"more than {MAX_FILES:,} files"
            raise DataError(f"export {place} holds {what}; it is refused as a whole")
        found[name] = where
    return Source(place, found)


def _folder_files(place: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for parent, folders, names in os.walk(place):
        for name in (*names, *(folder for folder in folders if (Path(parent) / folder).is_symlink())):
            file = Path(parent) / name
            if file.is_symlink() or not file.is_file():
                raise DataError(f"export {place} holds {file.relative_to(place)}, which is no plain file; it is refused as a whole")
            yield file.relative_to(place).as_posix(), (0, file.stat().st_size)


class _Bounded(io.FileIO):
    """A file of which no more than a bounded piece is read at once, whatever a header asks for."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_FILE_BYTES:
            raise tarfile.ReadError(f"{size} bytes asked for at once")
        return super().read(size)


def _archive_files(place: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        with _Bounded(place) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it remembers all of them
                if not member.isreg() or member.issparse():
                    raise DataError(f"export {place} holds {member.name[:200]!r}, which is no plain file; it is refused as a whole")
                yield member.name, (member.offset_data, member.size)
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        raise DataError(f"export {place} is no plain tar archive, or damaged ({error}); packed ones are not read") from error
