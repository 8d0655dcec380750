"""The files of a gallery folder, and replacing its table atomically.

GALLERY/gallery.json        the manifest: the model, and which table is searched
GALLERY/images.lance/       that table; images-2.lance and so on after it was rewritten
GALLERY/reembed.json        the next manifest, while the gallery is being embedded with another model (see `reembed`)
GALLERY/snapshots/NAME/     a manifest, a table and a footage.jsonl of its own for each snapshot (see `snapshots`)
GALLERY/footage.jsonl       the scenes and videos that were processed to their end (see `footage`)
GALLERY/retention.json      how long images are kept (see `retention`)
GALLERY/erasure.json        an erasure that has begun (see `erasure`)
GALLERY/.lock               held by the one process that writes (see `lock`)

A head is a manifest file; it names a table beside it. A new table is written under a name that no head refers to, then the head is
replaced atomically, then the old table is deleted. So if a process is killed at any moment, every head names one complete table.
The next process that writes deletes everything else. All functions that write are called under the gallery's lock.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tbps.errors import GalleryError
from tbps.gallery.store.manifest import MANIFEST_FILE, Manifest, read_manifest, write_manifest
from tbps.gallery.store.staleness import read_again, reading
from tbps.gallery.store.table import Table
from tbps.storage import writing_to

REEMBED_FILE = "reembed.json"
RETENTION_FILE = "retention.json"
ERASURE_FILE = "erasure.json"
FOOTAGE_FILE = "footage.jsonl"
SNAPSHOTS = "snapshots"
_T = TypeVar("_T")
_OWN_FILES = (MANIFEST_FILE, REEMBED_FILE, RETENTION_FILE, ERASURE_FILE, FOOTAGE_FILE)
_TABLE = re.compile(r"images(?:-(\d+))?\.lance")


def heads(folder: Path) -> list[Path]:
    """The manifest files of a gallery: its own, that of an unfinished re-embedding, and those of its snapshots by name."""
    own = [folder / MANIFEST_FILE, folder / REEMBED_FILE]
    return [head for head in [*own, *sorted((folder / SNAPSHOTS).glob(f"[!.]*/{MANIFEST_FILE}"))] if head.is_file()]


def manifest_at(head: Path) -> Manifest:
    """Reads the manifest in a head. Raises GalleryError if it is damaged or missing."""
    manifest = read_manifest(head.parent, head.name)
    if manifest is None:
        raise GalleryError(f"{head} no longer exists; another process removed or finished it")
    return manifest


def table_of(head: Path) -> Table | None:
    """Opens the table that a head names; None if it was not made yet. Raises GalleryError if either is damaged or missing."""
    manifest = manifest_at(head)
    return Table.open(head.parent, manifest.dim, manifest.table)


def steadily(folder: Path, look: Callable[[], _T]) -> _T:
    """Calls `look`, which reads a gallery without its lock, until no other process rewrites or removes a table meanwhile."""

    @read_again
    def read() -> _T:
        with reading(folder):
            return look()

    return read()


def next_table(folder: Path) -> str:
    """A name for a new table."""
    numbers = [int(found[1] or 1) for found in map(_TABLE.fullmatch, os.listdir(folder)) if found]
    return f"images-{max(numbers, default=0) + 1}"


def replace_head(head: Path, manifest: Manifest) -> None:
    """Replaces a head with a manifest that names another table, and deletes the previous table."""
    write_manifest(head.parent, manifest, head.name)
    _sweep_tables(head.parent)


def sweep(folder: Path) -> None:
    """Deletes incomplete files of killed processes."""
    with writing_to(folder):
        for name in _OWN_FILES:
            for part in folder.glob(f".{name}.*.part"):
                part.unlink()
        for begun in (folder / SNAPSHOTS).glob(".*"):
            shutil.rmtree(begun)
        for place in _folders(folder):
            _sweep_tables(place)


def remove_folder(folder: Path) -> None:
    """Deletes a snapshot's folder; if the process is killed meanwhile, `sweep` deletes the rest."""
    with writing_to(folder.parent):
        shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}")))


def link_table(source: Path, target: Path) -> None:
    """Copies a table's folder to `target`; data files, which never change once written, become hard links."""
    with writing_to(target.parent):
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            _link(file, copy) if file.parent.name == "data" else shutil.copyfile(file, copy)


def bytes_on_disk(folder: Path) -> int:
    """The size of all files below a folder; hard links to one file count once, files that are deleted meanwhile do not count."""
    sizes: dict[tuple[int, int], int] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                facts = os.lstat(os.path.join(parent, name))
            except FileNotFoundError:
                continue
            sizes[facts.st_dev, facts.st_ino] = facts.st_size
    return sum(sizes.values())


def _folders(folder: Path) -> Iterator[Path]:
    yield folder
    yield from (head.parent for head in heads(folder) if head.parent != folder)


def _sweep_tables(folder: Path) -> None:
    """Deletes the tables of a folder that no head names; does nothing in a folder without a manifest."""
    manifest = read_manifest(folder)
    if manifest is None:
        return
    named = {manifest.table}
    if (coming := read_manifest(folder, REEMBED_FILE)) is not None:
        if coming.table in named:  # killed between becoming the gallery's manifest and being removed
            (folder / REEMBED_FILE).unlink()
        named.add(coming.table)
    with writing_to(folder):
        for name in os.listdir(folder):
            if _TABLE.fullmatch(name) and name.removesuffix(".lance") not in named:
                shutil.rmtree(folder / name)


def _link(file: Path, copy: Path) -> None:
    try:
        os.link(file, copy)
    except OSError:  # a file system without hard links, or too many of them
        shutil.copyfile(file, copy)
