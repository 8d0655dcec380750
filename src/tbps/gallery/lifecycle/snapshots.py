"""Snapshots: named copies of a gallery, each in a folder of its own whose data files are hard links to the gallery's.

A snapshot takes space only for files that the gallery has rewritten since. Forgetting an image deletes it from snapshots too.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tbps.errors import GalleryError, SettingsError
from tbps.gallery.store.layout import (
    FOOTAGE_FILE,
    REEMBED_FILE,
    SNAPSHOTS,
    heads,
    link_table,
    manifest_at,
    next_table,
    remove_folder,
    replace_head,
    table_of,
)
from tbps.gallery.store.lock import PATIENCE
from tbps.gallery.store.manifest import MANIFEST_FILE, now, recorded, write_manifest
from tbps.gallery.store.writing import writing
from tbps.storage import make_folder, write_bytes, writing_to

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """Description of a snapshot. taken: ISO 8601, UTC; model: the folder or hub id that the model was opened from."""

    name: str
    taken: str
    images: int
    model: str
    fingerprint: str


def snapshots(folder: Path) -> list[SnapshotInfo]:
    """The snapshots of a gallery, oldest first."""
    found = []
    for head in heads(folder):
        if head.parent != folder:
            manifest, table = manifest_at(head), table_of(head)
            images = 0 if table is None else len(table)
            name, taken = head.parent.name, manifest.taken or ""
            found.append(SnapshotInfo(name, taken, images, manifest.encoder_name, manifest.encoder_fingerprint))
    return sorted(found, key=lambda snapshot: (snapshot.taken, snapshot.name))


def take_snapshot(folder: Path, name: str, patience: float = PATIENCE) -> SnapshotInfo:
    """Takes a snapshot of the gallery, after compacting it.

    Raises SettingsError on an invalid name, GalleryError when the name is taken or the gallery is empty.
    """
    place = _place(folder, name)
    with writing(folder, patience):
        if place.exists():
            raise GalleryError(f"gallery {folder} has a snapshot {name!r} already; take another name, or remove that one first")
        manifest, table = recorded(folder), table_of(folder / MANIFEST_FILE)
        if table is None:
            raise GalleryError(f"gallery {folder} is empty; there is nothing to keep")
        table.compact()
        begun = make_folder(place.with_name(f".{name}"))
        link_table(folder / f"{manifest.table}.lance", begun / f"{manifest.table}.lance")
        taken = manifest.model_copy(update={"taken": now()})
        write_manifest(begun, taken)
        with writing_to(folder):
            if (folder / FOOTAGE_FILE).is_file():
                shutil.copyfile(folder / FOOTAGE_FILE, begun / FOOTAGE_FILE)
            begun.rename(place)
        return SnapshotInfo(name, taken.taken or "", len(table), manifest.encoder_name, manifest.encoder_fingerprint)


def restore(folder: Path, name: str, patience: float = PATIENCE) -> SnapshotInfo:
    """Restores the gallery to a snapshot, without images that were forgotten since; the snapshot is kept.

    Images that were added since are lost, and an unfinished re-embedding is discarded. Scenes and videos that were searched since
    are searched again when they are indexed. Raises GalleryError when there is no such snapshot.
    """
    place = _place(folder, name)
    with writing(folder, patience):
        _check_there(folder, name)
        kept, table = recorded(place), next_table(folder)
        link_table(place / f"{kept.table}.lance", folder / f"{table}.lance")
        with writing_to(folder):
            (folder / REEMBED_FILE).unlink(missing_ok=True)
        # Before the manifest: if the record listed videos whose rows are lost, they would never be searched again.
        if (place / FOOTAGE_FILE).is_file():
            write_bytes(folder / FOOTAGE_FILE, (place / FOOTAGE_FILE).read_bytes())
        else:
            with writing_to(folder):
                (folder / FOOTAGE_FILE).unlink(missing_ok=True)
        replace_head(folder / MANIFEST_FILE, kept.model_copy(update={"table": table, "taken": None}))
        return next(snapshot for snapshot in snapshots(folder) if snapshot.name == name)


def remove_snapshot(folder: Path, name: str, patience: float = PATIENCE) -> None:
    """Deletes a snapshot; the gallery keeps its images. Raises GalleryError when there is no such snapshot."""
    place = _place(folder, name)
    with writing(folder, patience):
        _check_there(folder, name)
        remove_folder(place)


def _place(folder: Path, name: str) -> Path:
    recorded(folder)
    if not _NAME.fullmatch(name):
        raise SettingsError(f"snapshot name {name!r}: use letters, digits, dots, dashes and underscores, 64 at most")
    return folder / SNAPSHOTS / name


def _check_there(folder: Path, name: str) -> None:
    known = [snapshot.name for snapshot in snapshots(folder)]
    if name not in known:
        raise GalleryError(f"gallery {folder} has no snapshot {name!r}; there are: {', '.join(known) or 'none'}")
