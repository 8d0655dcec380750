"""Which images are to be forgotten, and forgetting them: `erasure` does the work, this module chooses and reports."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tbps.errors import QueryError
from tbps.search.columns import parse_time
from tbps.search.erasure import erase, erasing
from tbps.search.filters import condition
from tbps.search.layout import REEMBED_FILE, heads, steadily, table_of
from tbps.search.lock import PATIENCE
from tbps.search.manifest import recorded
from tbps.search.table import ids_clause, quoted
from tbps.search.writing import writing

_SAMPLE = 5
_TOLD = ["id", "source", "camera", "captured_at", "identity"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Images that pass all of what is given. before: taken earlier, which no image without a time is; ids: any of these."""

    where: str | None = None
    identity: str | None = None
    before: str | datetime | None = None
    ids: tuple[str, ...] = ()

    def clause(self) -> str:
        """As an SQL condition. Raises QueryError when nothing is given, or a part cannot be read."""
        parts = [] if self.where is None else [condition(self.where)]
        if self.identity is not None:
            parts.append(f"identity = {quoted(self.identity)}")
        if self.before is not None:
            if (moment := parse_time(self.before)) is None:
                raise QueryError(f"before {self.before!r} is no time; write it as 2024-05-01 or 2024-05-01T08:30:00")
            parts.append(f"captured_at < timestamp '{moment.isoformat()}'")
        if self.ids:
            parts.append(ids_clause(self.ids))
        if not parts:
            raise QueryError("nothing says what to forget; give a condition, an identity, a time or ids")
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """One image of a report's sample."""

    id: str
    source: str
    camera: str | None
    captured_at: str | None
    identity: str | None


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """What is gone, or would be in a dry run.

    images: distinct ones; gallery: those of them in the gallery itself; snapshots: how many are in each that has any;
    cameras: images of each camera; sample: the first few by id; undated: images of the gallery without a time, which no rule about
    time reaches.
    """

    images: int
    gallery: int
    snapshots: Mapping[str, int]
    cameras: Mapping[str | None, int]
    sample: tuple[Forgotten, ...]
    undated: int
    dry_run: bool
    seconds: float


def forget(folder: Path, clause: str, dry_run: bool = False, patience: float = PATIENCE) -> ForgetReport:
    """Erases every image that passes an SQL condition, from the gallery, its snapshots and an unfinished re-embedding.

    What passes in one of them goes from all; a snapshot from before a column existed is not asked about that column. The files that
    were indexed are not touched: remove them too, or indexing their folder again brings the images back. Only people of scenes and
    videos that were looked at to their end stay away: the gallery remembers those as done (see `footage`).
    Raises QueryError on a condition that cannot be read, StorageError where there is no room for a copy of the tables.
    """
    recorded(folder)
    started = time.monotonic()
    if dry_run:
        return _report(*steadily(folder, lambda: _find(folder, clause)), dry_run, started)
    with writing(folder, patience):
        found, counts, undated = _find(folder, clause)
        erase(folder, found)
    return _report(found, counts, undated, dry_run, started)


_Found = dict[str, dict[str, Any]]


def _find(folder: Path, clause: str) -> tuple[_Found, dict[str, int], int]:
    """The images by id, how many each head holds ("" the gallery, else the snapshot's name), and the gallery's without a time."""
    found: _Found = {}
    refusals: list[QueryError] = []
    places = [head for head in heads(folder) if head.name != REEMBED_FILE]  # which holds nothing that the gallery does not
    tables = {("" if place.parent == folder else place.parent.name): table_of(place) for place in places}
    made = {name: table for name, table in tables.items() if table is not None}
    for table in made.values():
        try:
            found |= {row["id"]: row for row in table.matching(clause, _TOLD)}
        except QueryError as error:
            refusals.append(error)
    if refusals and len(refusals) == len(made):
        raise refusals[0]
    for name in erasing(folder) & found.keys():
        del found[name]
    counts = {name: table.count_of(found) for name, table in made.items()}
    undated = len(made[""].matching("captured_at is null", ["id"])) if "" in made else 0
    return found, counts, undated


def _report(found: _Found, counts: Mapping[str, int], undated: int, dry_run: bool, started: float) -> ForgetReport:
    sample = tuple(_forgotten(found[name]) for name in sorted(found)[:_SAMPLE])
    return ForgetReport(
        images=len(found),
        gallery=counts.get("", 0),
        snapshots={name: count for name, count in counts.items() if name and count},
        cameras=Counter(row["camera"] for row in found.values()),
        sample=sample,
        undated=undated,
        dry_run=dry_run,
        seconds=time.monotonic() - started,
    )


def _forgotten(row: Mapping[str, Any]) -> Forgotten:
    captured = row["captured_at"]
    return Forgotten(row["id"], row["source"], row["camera"], None if captured is None else captured.isoformat(), row["identity"])
