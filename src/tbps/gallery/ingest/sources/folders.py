"""Walks a folder and its subfolders: lists files to index and entries that cannot be read, and counts the files that are left out.

Left out are hidden files and folders, files of operating systems (recycle bins, thumbnails of network drives), other galleries, and
files that the user excludes. Links to folders are not followed, so that every walk ends.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from tbps.errors import DataError
from tbps.gallery.ingest.sources.patterns import Patterns
from tbps.gallery.store.manifest import MANIFEST_FILE
from tbps.gallery.suffixes import kind_of

Failure = tuple[str, str]  # name of a file, and the reason

_SYSTEM = frozenset(
    {"@eadir", "@recycle", "@recently-snapshot", "@tmp", "@sharebin", "@synoresource", "@appstore", "@download", "@__thumb"}
    | {"#recycle", "#snapshot", "~snapshot", "$recycle.bin", "recycler", "$windows.~bt", "$windows.~ws", "lost+found"}
    | {"system volume information", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "msdownld.tmp"}
    | {"__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder"}
)
HIDDEN, SYSTEM, EXCLUDED, GALLERY = (
    "hidden files and folders",
    "files and folders of the system",
    "files and folders by --exclude",
    "galleries",
)


@final
class LeftOut:
    """Counts files and folders that are left out, by kind, each kind with its first example."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, name: str, count: int = 1) -> None:
        before, example = self._found.get(kind, (0, name))
        self._found[kind] = before + count, example

    def join(self, other: Mapping[str, tuple[int, str]]) -> None:
        for kind, (count, example) in other.items():
            self.add(kind, example, count)

    def add_unknown(self, name: str) -> None:
        """Adds a file that is neither picture, video nor archive, by its suffix."""
        base = name.rpartition("/")[2]
        ending = base[base.rindex(".") :].lower() if "." in base[1:] else ""
        known = 1 < len(ending) <= 10 and ending.isprintable()
        self.add(f"files ending in {ending}, which are not pictures" if known else "files without the suffix of a picture", name)

    @property
    def found(self) -> Mapping[str, tuple[int, str]]:
        """Kind -> count and example."""
        return dict(self._found)


def describe_left_out(left_out: Mapping[str, tuple[int, str]]) -> str:
    """One line about the files that were left out (see `LeftOut.found`); empty when there are none."""
    parts = [f"{kind} ({count:,}, such as {example})" for kind, (count, example) in sorted(left_out.items())]
    return f"left out: {'; '.join(parts)}" if parts else ""


def unwanted(part: str) -> str | None:
    """Why a file or folder of this name is left out: HIDDEN or SYSTEM; None for every other name."""
    if part.casefold() in _SYSTEM or part.startswith("._"):
        return SYSTEM
    return HIDDEN if part.startswith(".") and part != ".." else None


@dataclass(slots=True)
class Walk:
    """Result of a walk. files: sorted names below the folder, of plain files and of links to plain files inside the folder."""

    files: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)

    def add(self, name: str, entry: os.DirEntry[str], root: Path) -> None:
        """Adds an entry that is not a folder."""
        if kind_of(name) is None and _leads_out(entry, root):
            self.left_out.add_unknown(name)
        elif (reason := _refusal(entry, root)) is not None:
            self.failed.append((name, reason))
        else:
            self.files.append(name)


def walk(root: Path, exclude: Patterns) -> Walk:
    """Lists everything below `root`, a path without links. Raises DataError when `root` itself cannot be read."""
    found, waiting = Walk(), [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise DataError(f"{root} cannot be read ({error.strerror})") from error
            found.failed.append((folder, f"cannot be read ({error.strerror})"))
            continue
        if any(entry.name == MANIFEST_FILE for entry in entries):
            found.left_out.add(GALLERY, folder or str(root))
            continue
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if (kind := unwanted(entry.name)) is not None:
                found.left_out.add(kind, name)
            elif exclude.match(name, entry.is_dir(follow_symlinks=False)):
                found.left_out.add(EXCLUDED, name)
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(name)
            else:
                found.add(name, entry, root)
    found.files.sort()
    return found


def refusal_of(path: Path) -> str | None:
    """Why a path cannot be read as a file; None when it can. Does not open it: opening a pipe would wait for its writer."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "is a link to a file that does not exist" if os.path.islink(path) else "there is no such file"
    except (OSError, ValueError) as error:
        loops = isinstance(error, OSError) and os.path.islink(path) and "symbolic" in (error.strerror or "")
        return "is a link that leads back to itself" if loops else f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if stat.S_ISREG(mode):
        return None
    return "is a folder, not a file" if stat.S_ISDIR(mode) else "is a pipe, socket or device, which is not read"


def _refusal(entry: os.DirEntry[str], root: Path) -> str | None:
    if not entry.is_symlink():
        return None if entry.is_file(follow_symlinks=False) else refusal_of(Path(entry.path))
    reason = refusal_of(Path(entry.path))
    if reason is not None:
        folder = reason == "is a folder, not a file"
        return "is a link to a folder, which is not followed; index that folder itself" if folder else reason
    return "is a link that leads out of the folder; copy the file instead" if _leads_out(entry, root) else None


def _leads_out(entry: os.DirEntry[str], root: Path) -> bool:
    """Whether an entry is a link to a file outside `root`."""
    return entry.is_symlink() and os.path.isfile(entry.path) and not Path(os.path.realpath(entry.path)).is_relative_to(root)
