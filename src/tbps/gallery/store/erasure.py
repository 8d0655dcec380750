"""Rows gone from disk: from the gallery's table, an unfinished re-embedding and every snapshot, whatever is killed in between.

A database that deletes a row only marks it, and when LanceDB 0.40 merges, it leaves a file as it is while less than a tenth of
its rows are marked: the bytes would stay. Here every table that holds such a row is written anew without it, and the old one is
removed as a folder: data files, deletion marks, indices, old versions and the log of transactions.

GALLERY/erasure.json says what is being erased while it is: ids only, which are digests, no name, camera or condition. It is there
before the first row goes and is removed after the last; every process that writes, and every `Gallery.open`, completes it first.
As long as the file is there, its rows are left out of whatever a `Gallery` answers, also in a process that opened it before.
"""

import json
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from tbps.errors import GalleryError, StorageError
from tbps.gallery.store.layout import ERASURE_FILE, bytes_on_disk, heads, manifest_at, next_table, replace_head, table_of
from tbps.storage import write_text, writing_to


def erase(folder: Path, ids: Collection[str]) -> None:
    """Removes the rows with those ids everywhere; under the lock. Raises StorageError where there is no room for the copies."""
    if ids:
        _check_room(folder, ids)
        write_text(folder / ERASURE_FILE, json.dumps(sorted(ids)) + "\n")
        complete(folder)


def begun(folder: Path) -> bool:
    """Whether an erasure has begun and is not complete."""
    return (folder / ERASURE_FILE).exists()


def erasing(folder: Path) -> frozenset[str]:
    """The ids of the rows that are being erased. Raises GalleryError if they cannot be read: then nothing may be shown."""
    try:
        return frozenset(_ids(folder / ERASURE_FILE))
    except FileNotFoundError:
        return frozenset()


def complete(folder: Path) -> None:
    """Completes an erasure that has begun; under the lock, after `layout.sweep`."""
    if not begun(folder):
        return
    ids = _ids(folder / ERASURE_FILE)
    try:
        _rewrite(folder, ids)
    except StorageError as error:
        raise StorageError(f"images of gallery {folder} that are to be forgotten are still on disk: {error}") from error
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
            f"nothing was forgotten: gallery {folder} is written anew for that, which needs {needed:,} bytes, but {free:,} are "
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
