"""Exports a gallery to a folder or tar archive, and imports one into a gallery; `export_format` describes the files."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tbps.errors import GalleryError, MixedModelsError, SettingsError
from tbps.gallery.encoder import Encoder
from tbps.gallery.lifecycle.export_files import new_export, open_export
from tbps.gallery.lifecycle.export_format import Export, OnProgress, read_export, read_parts, write_export
from tbps.gallery.store.columns import MAX_COLUMNS, fitted, unfit_note
from tbps.gallery.store.layout import table_of
from tbps.gallery.store.lock import PATIENCE
from tbps.gallery.store.manifest import MANIFEST_FILE, Manifest, manifest_of, read_manifest, recorded, write_manifest
from tbps.gallery.store.schema import Kind
from tbps.gallery.store.table import Table
from tbps.gallery.store.writing import writing


@dataclass(frozen=True, slots=True)
class TransferReport:
    """Result of `export` or `import_export`.

    images: number of images exported or imported; skipped_existing: number of images whose content the gallery already holds;
    notes: remarks on columns.
    """

    images: int
    skipped_existing: int
    notes: tuple[str, ...]
    seconds: float


def export(folder: Path, target: Path, on_progress: OnProgress | None = None, patience: float = PATIENCE) -> TransferReport:
    """Exports a gallery to a new folder, or to a new archive when `target` ends in .tar; other writers wait until it is done.

    Images that are forgotten later stay in the export. It does not record finished scenes and videos: if their files are indexed
    into the gallery that imports it, they are searched again, and people who were forgotten here are stored there.

    Raises SettingsError when `target` exists, GalleryError on an empty gallery, StorageError on a full disk.
    """
    started = time.monotonic()
    recorded(folder)
    if target.exists():
        raise SettingsError(f"{target} exists already; name a new folder or a new .tar file")
    with writing(folder, patience):
        manifest, table = recorded(folder), table_of(folder / MANIFEST_FILE)
        if table is None or not len(table):
            raise GalleryError(f"gallery {folder} is empty; there is nothing to export")
        with new_export(target) as put:
            images = write_export(put, manifest, table, on_progress or (lambda done, total: None))
    return TransferReport(images, 0, (), time.monotonic() - started)


def import_export(
    folder: Path,
    place: Path,
    model: Encoder | None = None,
    on_progress: OnProgress | None = None,
    patience: float = PATIENCE,
) -> TransferReport:
    """Adds the images of an export to a gallery of the same model; `model` is needed when there is no gallery yet.

    The export is read twice: everything is checked before the first image is added. If the process is killed, the gallery holds
    every image that `on_progress` counted, and the same call adds the rest.

    Raises DataError on an export that is damaged, unfinished or has wrong values, MixedModelsError on one of another model.
    """
    started, progress = time.monotonic(), on_progress or (lambda done, total: None)
    files = open_export(place)
    exported = read_export(files)
    manifest = read_manifest(folder) or (None if model is None else manifest_of(model))
    if manifest is None:
        raise SettingsError(f"there is no gallery at {folder} yet; pass --model with the model to search it with")
    _check_same_model(folder, manifest, exported, new=read_manifest(folder) is None)
    for _ in read_parts(files, exported):
        pass
    added = skipped = 0
    progress(0, exported.rows)
    left_out: set[str] = set()
    lost: Counter[str] = Counter()
    for rows, embeddings in read_parts(files, exported):
        with writing(folder, patience):
            table = _table(folder, manifest)
            left_out |= _fit_columns(rows, table, exported.columns, lost)
            new = _append_new(table, rows, embeddings, manifest.encoder_fingerprint)
        added, skipped = added + new, skipped + len(rows) - new
        progress(added + skipped, exported.rows)
    with writing(folder, patience):
        table = _table(folder, manifest)
        table.tidy()
        kinds = table.extras()
    notes = [f"column {name!r} is kept in attributes but cannot be filtered on here" for name in sorted(left_out)]
    notes += [unfit_note(name, kinds[name], count) for name, count in sorted(lost.items()) if count and name in kinds]
    return TransferReport(added, skipped, tuple(notes), time.monotonic() - started)


def _check_same_model(folder: Path, manifest: Manifest, exported: Export, new: bool) -> None:
    if (exported.encoder_fingerprint, exported.dim) != (manifest.encoder_fingerprint, manifest.dim):
        given, way_out = (
            ("the given model is", "give the export's model with --model")
            if new
            else (f"gallery {folder} holds those of", "import it into a gallery of its own")
        )
        raise MixedModelsError(
            f"the export holds embeddings of model {exported.encoder_name[:200]!r} ({exported.encoder_fingerprint[:64]}), {given} "
            f"{manifest.encoder_name!r} ({manifest.encoder_fingerprint}); {way_out}"
        )


def _table(folder: Path, manifest: Manifest) -> Table:
    """The gallery's table, created with its manifest when it does not exist. Must be called under the gallery's lock."""
    found = read_manifest(folder)
    if found is None:
        write_manifest(folder, manifest)
        found = manifest
    if found.encoder_fingerprint != manifest.encoder_fingerprint:
        raise MixedModelsError(f"gallery {folder} was switched to another model during the import; nothing more was added")
    return Table.begin(folder, found.dim, found.table)


def _append_new(table: Table, rows: list[dict[str, Any]], embeddings: np.ndarray, model: str) -> int:
    """Adds the rows that the table does not hold; returns their number. model: fingerprint of the encoder."""
    present = table.present([row["id"] for row in rows])
    new = [place for place, row in enumerate(rows) if row["id"] not in present]
    if new:
        table.append([{**rows[place], "model": model} for place in new], embeddings[new])
    return len(new)


def _fit_columns(rows: list[dict[str, Any]], table: Table, columns: Mapping[str, Kind], lost: Counter[str]) -> set[str]:
    """Adds the export's columns to the table and converts the rows' values; returns the names of columns that cannot be added.

    A value that the table's column cannot hold stays in the attributes only, and is counted in `lost`.
    """
    existing = table.extras()
    fresh = [name for name in columns if name not in existing]
    left_out = {name for name, kind in columns.items() if not _alike(existing.get(name, kind), kind)}
    left_out |= set(fresh[max(0, MAX_COLUMNS - len(existing)) :])
    widened = {
        name: kind
        for name, kind in columns.items()
        if (existing.get(name), kind) == ("integer", "number")
        and any(row[name] is not None and fitted(row[name], "integer") is None for row in rows)
        and table.doubles_hold(name)
    }
    table.add_columns({name: columns[name] for name in fresh if name not in left_out} | widened)
    existing |= widened
    for row in rows:
        row.update(dict.fromkeys(left_out))
    for name in sorted(existing.keys() & columns.keys() - left_out):
        if (kind := existing[name]) != columns[name]:
            for row in rows:
                given, row[name] = row[name], fitted(row[name], kind)
                lost[name] += given is not None and row[name] is None
    return left_out


def _alike(one: Kind, other: Kind) -> bool:
    """Whether values of one kind may fit a column of the other: equal kinds, or two kinds of numbers."""
    return one == other or {one, other} == {"integer", "number"}
