"""Erases rows from disk: from the gallery's table, an unfinished re-embedding and every snapshot. Interrupted erasures resume.

LanceDB deletes a row by marking it, and LanceDB 0.40 rewrites a file when it compacts only if at least a tenth of its rows are
marked: the bytes could stay. So every table that holds such a row is copied without it, and the folder of the old table is deleted
with its data files, deletion marks, indices, old versions and transaction log.

GALLERY/erasure.json lists the ids that are being erased. Ids are digests; it holds no name, camera or condition. It is written
before the first row is erased and deleted after the last. Every process that writes, and every `Gallery.open`, first completes an
erasure that was interrupted. While the file exists, no `Gallery` returns these rows, also not in a process that opened it before.
"""

import json
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from tbps.errors import GalleryError, StorageError
from tbps.gallery.store.layout import ERASURE_FILE, bytes_on_disk, heads, manifest_at, next_table, replace_head, table_of
from tbps.storage import write_text, writing_to


def erase(folder: Path, ids: Collection[str]) -> None:
    """Erases the rows with the given ids everywhere. Call under the gallery's lock.

    Raises StorageError if the disk has no space for the copies of the tables.
    """
    if ids:
        _check_room(folder, ids)
        write_text(folder / ERASURE_FILE, json.dumps(sorted(ids)) + "\n")
        complete(folder)


def begun(folder: Path) -> bool:
    """Whether an erasure has begun and is not completed."""
    return (folder / ERASURE_FILE).exists()


def erasing(folder: Path) -> frozenset[str]:
    """The ids of the rows that are being erased. Raises GalleryError if they cannot be read, as no row may be shown then."""
    try:
        return frozenset(_ids(folder / ERASURE_FILE))
    except FileNotFoundError:
        return frozenset()


def complete(folder: Path) -> None:
    """Completes an erasure if one has begun. Call under the gallery's lock, after `layout.sweep`."""
    if not begun(folder):
        return
    ids = _ids(folder / ERASURE_FILE)
    try:
        _rewrite(folder, ids)
    except StorageError as error:
        raise StorageError(f"images of gallery {folder} could not be erased and are still on disk: {error}") from error
    with writing_to(folder):
        (folder / ERASURE_FILE).unlink()


def _rewrite(folder: Path, ids: Collection[str]) -> None:
    for head in heads(folder):
        table = table_of(head)
        if table is not None and table.count_of(ids):
            name = next_table(head.parent)
            table.copy_without(ids, name)
            replace_head(head, manifest_at(head).model_copy(update={"table": name}))
        elif table is not None:
            table.compact()  # removes rows that a killed writer wrote and never committed


def _check_room(folder: Path, ids: Collection[str]) -> None:
    needed = 0
    for head in heads(folder):
        if (table := table_of(head)) is not None and table.count_of(ids):
            needed += bytes_on_disk(head.parent / f"{table.name}.lance")
    if (free := shutil.disk_usage(folder).free) < needed:
        raise StorageError(
            f"nothing was forgotten: gallery {folder} is rewritten for that, which needs {needed:,} bytes, but {free:,} are "
            "free; free space or remove snapshots, and run again"
        )


def _ids(file: Path) -> Sequence[str]:
    try:
        ids = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise GalleryError(f"{file} cannot be read ({error}); remove it and forget the same rows again") from error
    if not isinstance(ids, list):
        raise GalleryError(f"{file} is damaged (no list of ids); remove it and forget the same rows again")
    return [str(id) for id in ids]
