"""Forgets images: selects them by condition or id, and reports them. `erasure` deletes them from disk."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tbps.errors import QueryError
from tbps.gallery.store.erasure import erase, erasing
from tbps.gallery.store.filter_reading import written
from tbps.gallery.store.filters import Always, Among, Compare, Condition, Every, Is, check_text, no_camera, shortened, values_of
from tbps.gallery.store.layout import REEMBED_FILE, heads, steadily, table_of
from tbps.gallery.store.lock import PATIENCE
from tbps.gallery.store.manifest import recorded
from tbps.gallery.store.numbers import canonical_name
from tbps.gallery.store.table import Table
from tbps.gallery.store.writing import writing
from tbps.preprocess.metadata import parse_time

_SAMPLE = 5
_TOLD = ["id", "source", "camera", "captured_at", "identity"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects the images that meet all given conditions.

    where: a filter (see `filters`); before: captured before this time, which excludes images without a time; ids: with one of these
    ids.
    """

    where: str | None = None
    identity: str | None = None
    before: str | datetime | None = None
    ids: tuple[str, ...] = ()

    def condition(self) -> Condition:
        """All conditions except the ids, as one. Raises QueryError when none is given, or one cannot be parsed."""
        parts: list[Condition] = [] if self.where is None else [written(self.where)]
        if self.identity is not None:
            check_text("the identity", self.identity)
            parts.append(Among("identity", (self.identity,)))
        if self.before is not None:
            if (moment := parse_time(self.before)) is None:
                raise QueryError(f"before {shortened(self.before)} is not a time; write it as 2024-05-01 or 2024-05-01T08:30:00")
            parts.append(Compare("captured_at", "<", moment))
        for id_ in self.ids:
            check_text("an id", id_)
        if not parts and not self.ids:
            raise QueryError("no selection of images to forget was given; give a condition, an identity, a time or ids")
        return Every(tuple(parts)) if parts else Always(True)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """One image of the sample in a report."""

    id: str
    source: str
    camera: str | None
    captured_at: str | None
    identity: str | None


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """What was forgotten, or would be without `dry_run`.

    images: distinct images; gallery: how many of them the gallery itself holds; snapshots: how many each snapshot holds; cameras:
    images per camera; sample: the first few by id; undated: number of images of the gallery without a capture time, which no
    condition on time matches; notices: for the user, such as about a camera in the filter that has no images.
    """

    images: int
    gallery: int
    snapshots: Mapping[str, int]
    cameras: Mapping[str | None, int]
    sample: tuple[Forgotten, ...]
    undated: int
    dry_run: bool
    seconds: float
    notices: tuple[str, ...] = ()


def forget(folder: Path, chosen: Selection | Condition | str, dry_run: bool = False, patience: float = PATIENCE) -> ForgetReport:
    """Deletes images from the gallery, its snapshots and an unfinished re-embedding. chosen: a text is a filter.

    An image that matches in one of them is deleted from all. A snapshot that lacks a column of the condition is not searched. The
    indexed files are not deleted: delete them too, or the images are added again when their folder is indexed again. Only people
    in finished scenes and videos are not, since these are not searched again (see `record`).

    Raises QueryError on a condition that cannot be read, StorageError when there is no room for a copy of the tables.
    """
    recorded(folder)
    started = time.monotonic()
    selection = Selection(where=chosen) if isinstance(chosen, str) else chosen
    condition, ids = (selection.condition(), selection.ids) if isinstance(selection, Selection) else (selection, ())
    if dry_run:
        return _report(steadily(folder, lambda: _find(folder, condition, ids)), dry_run, started)
    with writing(folder, patience):
        found = _find(folder, condition, ids)
        erase(folder, found.rows)
    return _report(found, dry_run, started)


@dataclass(frozen=True, slots=True)
class _Found:
    """The selected images. rows: id -> columns; counts: snapshot ("" for the gallery) -> number; undated: see `ForgetReport`."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    undated: int = 0
    notices: tuple[str, ...] = ()


def _find(folder: Path, condition: Condition, ids: Sequence[str]) -> _Found:
    found: dict[str, dict[str, Any]] = {}
    refusals: list[QueryError] = []
    places = [head for head in heads(folder) if head.name != REEMBED_FILE]  # a re-embedding holds images of the gallery only
    tables = {("" if place.parent == folder else place.parent.name): table_of(place) for place in places}
    made = {name: table for name, table in tables.items() if table is not None}
    for table in made.values():
        try:
            found |= {row["id"]: row for row in table.matching(condition, _TOLD, list(dict.fromkeys(ids)) if ids else None)}
        except QueryError as error:
            refusals.append(error)
    if refusals and len(refusals) == len(made):
        raise refusals[0]
    for id_ in erasing(folder) & found.keys():
        del found[id_]
    counts = {name: table.count_of(found) for name, table in made.items()}
    undated = len(made[""].matching(Is("captured_at", None), ["id"])) if "" in made else 0
    return _Found(found, counts, undated, () if found else _unknown_cameras(condition, made.values()))


def _unknown_cameras(condition: Condition, tables: Iterable[Table]) -> tuple[str, ...]:
    """Notices about cameras that a condition names but that have no image."""
    asked = sorted({canonical_name(value) for value in values_of(condition, "camera")})
    if not asked:
        return ()
    known = {canonical_name(span.camera) for table in tables for span in table.cameras() if span.camera is not None}
    return tuple(no_camera(camera, known) for camera in asked[:_SAMPLE] if camera not in known)


def _report(found: _Found, dry_run: bool, started: float) -> ForgetReport:
    sample = tuple(_forgotten(found.rows[id_]) for id_ in sorted(found.rows)[:_SAMPLE])
    return ForgetReport(
        images=len(found.rows),
        gallery=found.counts.get("", 0),
        snapshots={name: count for name, count in found.counts.items() if name and count},
        cameras=Counter(row["camera"] for row in found.rows.values()),
        sample=sample,
        undated=found.undated,
        dry_run=dry_run,
        seconds=time.monotonic() - started,
        notices=found.notices,
    )


def _forgotten(row: Mapping[str, Any]) -> Forgotten:
    captured = row["captured_at"]
    return Forgotten(row["id"], row["source"], row["camera"], None if captured is None else captured.isoformat(), row["identity"])
