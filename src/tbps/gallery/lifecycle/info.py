"""Describes a gallery folder, without opening its model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tbps.gallery.lifecycle.snapshots import SnapshotInfo, snapshots
from tbps.gallery.store.erasure import begun
from tbps.gallery.store.layout import REEMBED_FILE, bytes_on_disk, steadily, table_of
from tbps.gallery.store.manifest import Manifest, read_manifest, recorded
from tbps.gallery.store.numbers import canonical_name
from tbps.gallery.store.retention_rules import Retention, read_retention
from tbps.gallery.store.schema import told_kind
from tbps.gallery.store.table import CameraSpan, Table


@dataclass(frozen=True, slots=True)
class UnfinishedReembedding:
    """A re-embedding that is not complete. images: number of images embedded so far."""

    model: str
    images: int


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """Contents of a gallery.

    columns: name -> kind of the columns that a filter may name; bytes: size on disk, old versions and snapshots included;
    versions: versions of the table on disk; erasing: whether an erasure was begun and is not complete.
    """

    path: Path
    images: int
    model: str
    fingerprint: str
    dim: int
    created: str
    columns: Mapping[str, str]
    bytes: int
    cameras: tuple[CameraSpan, ...]
    versions: int
    snapshots: tuple[SnapshotInfo, ...]
    retention: Retention
    reembedding: UnfinishedReembedding | None
    erasing: bool


def describe(folder: Path, manifest: Manifest | None = None) -> GalleryInfo:
    """Describes a gallery. manifest: used if the gallery has none yet. Raises GalleryError when it is missing or damaged."""
    return steadily(folder, lambda: _describe(folder, read_manifest(folder) or manifest or recorded(folder)))


def cameras_of(folder: Path) -> set[str]:
    """The cameras of a gallery. Raises GalleryError when it is missing or damaged."""

    def look() -> set[str]:
        manifest = recorded(folder)
        table = Table.open(folder, manifest.dim, manifest.table)
        spans = [] if table is None else table.cameras()
        return {canonical_name(span.camera) for span in spans if span.camera is not None}

    return steadily(folder, look)


def _describe(folder: Path, manifest: Manifest) -> GalleryInfo:
    table = Table.open(folder, manifest.dim, manifest.table)
    return GalleryInfo(
        path=folder,
        images=0 if table is None else len(table),
        model=manifest.encoder_name,
        fingerprint=manifest.encoder_fingerprint,
        dim=manifest.dim,
        created=manifest.created,
        columns={} if table is None else {name: told_kind(kind) for name, kind in table.kinds().items()},
        bytes=bytes_on_disk(folder),
        cameras=() if table is None else tuple(table.cameras()),
        versions=0 if table is None else table.versions(),
        snapshots=tuple(snapshots(folder)),
        retention=read_retention(folder),
        reembedding=_unfinished(folder),
        erasing=begun(folder),
    )


def _unfinished(folder: Path) -> UnfinishedReembedding | None:
    coming = read_manifest(folder, REEMBED_FILE)
    if coming is None:
        return None
    table = table_of(folder / REEMBED_FILE)
    return UnfinishedReembedding(coming.encoder_name, 0 if table is None else len(table))
