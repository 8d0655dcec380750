"""Compacts a gallery: merges fragments of its table and deletes old versions."""

import time
from dataclasses import dataclass
from pathlib import Path

from tbps.errors import GalleryError
from tbps.gallery.store.layout import bytes_on_disk, table_of
from tbps.gallery.store.lock import PATIENCE
from tbps.gallery.store.manifest import MANIFEST_FILE, recorded
from tbps.gallery.store.writing import writing


@dataclass(frozen=True, slots=True)
class CompactReport:
    """Result of `compact`. bytes: size on disk, snapshots included; versions: versions of the table on disk."""

    bytes_before: int
    bytes_after: int
    versions_before: int
    versions_after: int
    seconds: float


def compact(folder: Path, patience: float = PATIENCE) -> CompactReport:
    """Merges the fragments that commits leave, and deletes old versions. Raises GalleryError on an empty gallery."""
    started = time.monotonic()
    recorded(folder)
    with writing(folder, patience):
        table = table_of(folder / MANIFEST_FILE)
        if table is None:
            raise GalleryError(f"gallery {folder} is empty; there is nothing to compact")
        before = bytes_on_disk(folder), table.versions()
        table.compact()
        after = bytes_on_disk(folder), table.versions()
    return CompactReport(before[0], after[0], before[1], after[1], time.monotonic() - started)
