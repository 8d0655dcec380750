"""From a query to a page of hits: direction, filter, nearest rows, re-ranking, groups, estimates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from tbps.errors import GalleryError, QueryError, UnknownIdError
from tbps.gallery.encoder import Encoder, Picture
from tbps.gallery.search.calibration import calibration_of, line_at
from tbps.gallery.search.compose import Direction, compose, named
from tbps.gallery.search.engine import Engine
from tbps.gallery.search.page import Line, Page
from tbps.gallery.search.query import Query
from tbps.gallery.search.rerank import reranked
from tbps.gallery.store.columns import column_name
from tbps.gallery.store.filter_reading import written
from tbps.gallery.store.filters import (
    Condition,
    all_of,
    between,
    check_text,
    equal,
    no_camera,
    sentences,
    unknown_column,
    values_of,
)
from tbps.gallery.store.hit import Group
from tbps.gallery.store.numbers import canonical_name
from tbps.gallery.store.retention_rules import read_retention
from tbps.gallery.store.scope import Scope
from tbps.gallery.store.version import Snapshot

MEMBERS = 1000
ID_LENGTH = 24
MOST_EQUALS = 200  # a table has fewer columns
_MOST_NOTICES = 3
_LINE_DEPTH = 100  # how far down the line is looked for


def find(
    engine: Engine,
    model: Encoder,
    query: Query,
    pictures: Sequence[Picture] = (),
    within: Sequence[str] | None = None,
    thumbnails: bool = True,
) -> Page:
    """The page that a query asks for; `pictures` are sought with `query.picture_weight`. Raises as `Gallery.find`."""

    def answer(snapshot: Snapshot) -> Page:
        scope = None if within is None else snapshot.scope(within)
        return _answer(_Asked(engine, snapshot, model, query, scope, thumbnails), pictures)

    if query.version is None:
        return engine.on_newest(answer)
    try:
        return answer(engine.at(query.version, within))
    except (GalleryError, QueryError):
        engine.at(query.version, within)  # says that it is gone, if writers removed its files meanwhile
        raise


def check(query: Query, snapshot: Snapshot, scope: Scope | None) -> None:
    """Raises QueryError on conditions and a grouping that cannot be asked of a version, as `find` does before it answers."""
    passing_of(query, snapshot, scope)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who asks what of which version; scope: the rows that there are for who asks, None for all; thumbnails: wanted with hits."""

    engine: Engine
    snapshot: Snapshot
    model: Encoder
    query: Query
    scope: Scope | None
    thumbnails: bool


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Positions and cosines in the order of the answer; complete: no further row passes."""

    positions: np.ndarray
    scores: np.ndarray
    approximate: bool
    complete: bool


def _answer(asked: _Asked, pictures: Sequence[Picture]) -> Page:
    snapshot, model, query, scope = asked.snapshot, asked.model, asked.query, asked.scope
    group, passing = passing_of(query, snapshot, scope)
    direction = compose(query, pictures, model, known(snapshot, scope, named(query)))
    search = _Search(asked.engine, snapshot, direction, query, passing)
    images = snapshot.rows.count if scope is None else len(scope.positions)
    calibration = calibration_of(model) if direction.plain and not query.rerank and images else None
    wanted = query.offset + query.k
    depth = wanted if calibration is None else max(wanted, _LINE_DEPTH)
    if group is None:
        ranking, codes = search.ranking(depth), None
        total = snapshot.rows.count if passing is None else len(passing)
    else:
        codes = _group_codes(snapshot, group)
        ranking = search.grouped(depth, codes)
        total = len(np.unique(codes if passing is None else codes[passing]))
    shown = slice(query.offset, wanted)
    hits = snapshot.hits(ranking.positions[shown], ranking.scores[shown], query.offset + 1, asked.thumbnails)
    if codes is not None and group is not None:
        hits = [
            replace(hit, group=search.group(group, codes, position))
            for hit, position in zip(hits, ranking.positions[shown].tolist(), strict=True)
        ]
    line = None
    if calibration is not None:
        z = (snapshot if scope is None else scope).spread.z(direction.vector, ranking.scores)
        chances = calibration.chances(z, images)
        hits = [replace(hit, chance=float(chance)) for hit, chance in zip(hits, chances[shown], strict=True)]
        line = Line(*line_at(chances[:_LINE_DEPTH], query.share))
    version = snapshot.version if scope is None else scope.version
    following = query.model_copy(update={"offset": wanted, "version": version}) if total > wanted else None
    notices = (*direction.notices, *_notices(query, snapshot, scope))
    return Page(tuple(hits), total, version, following, line, ranking.approximate, notices)


@dataclass(frozen=True, slots=True)
class _Search:
    """One direction in one version among the rows that pass."""

    engine: Engine
    snapshot: Snapshot
    direction: Direction
    query: Query
    passing: np.ndarray | None

    def ranking(self, depth: int) -> _Ranking:
        """The first `depth` rows, and more where they are at hand, re-ranked where that is asked for."""
        vector, index = self.direction.vector, self.snapshot.rows.index
        count = max(depth, self.query.rerank)
        found = self.engine.top(self.snapshot, vector, count, self.passing)
        positions, scores = found.positions, found.scores
        complete = len(positions) < count
        if self.query.rerank > 1 and len(positions) > 1:
            first = positions[: self.query.rerank]
            rows = index.embeddings[first].astype(np.float64)
            order = np.arange(len(positions))
            order[: len(first)] = reranked(scores[: len(first)], rows @ rows.T, self.direction.by_text)
            positions, scores = positions[order], scores[order]
        return _Ranking(positions, scores, found.approximate, complete)

    def grouped(self, wanted: int, codes: np.ndarray) -> _Ranking:
        """The best row of each of the first `wanted` groups."""
        depth = 4 * wanted
        while True:
            ranking = self.ranking(depth)
            _, first = np.unique(codes[ranking.positions], return_index=True)
            if len(first) >= wanted or ranking.complete:
                keep = np.sort(first)
                return replace(ranking, positions=ranking.positions[keep], scores=ranking.scores[keep])
            depth *= 4

    def group(self, column: str, codes: np.ndarray, best: int) -> Group:
        """The group that a row is the best of."""
        members = np.flatnonzero(codes == codes[best])
        if self.passing is not None:
            at = np.minimum(np.searchsorted(self.passing, members), len(self.passing) - 1)
            members = members[self.passing[at] == members]
        ranked, _ = self.snapshot.rows.index.top(self.direction.vector, MEMBERS, members)
        values, times = self.snapshot.column(column), self.snapshot.column("captured_at")
        seen = [times.values[code] for code in np.unique(times.codes[members]).tolist() if code >= 0]
        return Group(
            column=column,
            value=_plain(values.values[values.codes[best]]) if values.codes[best] >= 0 else None,
            count=len(members),
            first_seen=min(seen).isoformat() if seen else None,
            last_seen=max(seen).isoformat() if seen else None,
            ids=tuple(name.decode() for name in self.snapshot.rows.ids[ranked].tolist()),
        )


def position_of(snapshot: Snapshot, scope: Scope | None, name: str) -> int:
    """Where the image with an id is. Raises UnknownIdError where there is none, or none for who asks."""
    # NumPy compares bytes without the zeros at their end.
    same = snapshot.rows.ids == name.encode("ascii", "replace") if len(name) == ID_LENGTH else np.zeros(0, np.bool_)
    positions = np.flatnonzero(same)
    if not len(positions) or (scope is not None and int(positions[0]) not in scope):
        raise UnknownIdError(f"no image of the gallery has the id {name!r}; ids are those of hits")
    return int(positions[0])


def known(snapshot: Snapshot, scope: Scope | None, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The embeddings of images by id. Raises UnknownIdError."""
    return {name: snapshot.rows.embeddings[position_of(snapshot, scope, name)].astype(np.float64) for name in names}


def passing_of(query: Query, snapshot: Snapshot, scope: Scope | None) -> tuple[str | None, np.ndarray | None]:
    """The column to group by, and ascending positions of the rows that there are for who asks and that pass; None for all.

    Raises QueryError on a column or camera that is not there for who asks, and on a value that does not fit its column.
    """
    if len(query.equals) > MOST_EQUALS:
        raise QueryError(f"{len(query.equals):,} columns are compared by equals, more than {MOST_EQUALS}")
    group = None if query.group is None else _group_column(query.group, snapshot.kinds if scope is None else scope.kinds)
    conditions: list[Condition] = [] if query.where is None else [written(query.where)]
    conditions += between(query.since, query.until)
    if query.cameras:
        _check_cameras(query.cameras, snapshot, scope)
        conditions.append(equal("camera", query.cameras))
    for column, value in query.equals.items():
        conditions.append(equal(column, (value,)))
        if column_name(column) == "camera":
            _check_cameras([str(value)] if isinstance(value, str) else [], snapshot, scope)
    condition = all_of(conditions)
    if condition is None:
        return group, None if scope is None else scope.positions
    return group, snapshot.passing(condition) if scope is None else scope.passing(condition, snapshot.passing)


def _group_column(name: str, kinds: Mapping[str, str]) -> str:
    check_text("the column to group by", name)
    column = column_name(name)
    if kinds.get(column) in (None, "JSON text"):
        known = {each: kind for each, kind in kinds.items() if kind != "JSON text"}
        reason = unknown_column(name, known, "to group by")
        raise QueryError(f"{sentences(reason)} Columns: {', '.join(known)}")
    return column


def _check_cameras(cameras: Sequence[str], snapshot: Snapshot, scope: Scope | None) -> None:
    """Raises QueryError on the first camera of which there is nothing and never was, with the likely one."""
    known = _cameras(snapshot, scope)
    missing = [camera for camera in cameras if canonical_name(camera) not in known]
    if missing and scope is None:  # all images of a camera may have been forgotten by its rule
        ruled = {canonical_name(camera) for camera in read_retention(snapshot.folder).cameras}
        missing = [camera for camera in missing if canonical_name(camera) not in ruled]
    if missing:
        check_text("a camera", missing[0])
        raise QueryError(no_camera(missing[0], known))


def _cameras(snapshot: Snapshot, scope: Scope | None) -> set[str]:
    """The cameras of the images that there are for who asks, and those that are theirs without an image."""
    column = snapshot.column("camera")
    codes = column.codes if scope is None else column.codes[scope.positions]
    found = {column.values[code] for code in np.unique(codes).tolist() if code >= 0}
    return found if scope is None else found | set(scope.cameras)


def _notices(query: Query, snapshot: Snapshot, scope: Scope | None) -> tuple[str, ...]:
    """Remarks on cameras that a filter names and no image has."""
    if query.where is None:
        return ()
    asked = list(dict.fromkeys(values_of(written(query.where), "camera")))
    known = _cameras(snapshot, scope) if asked else set()
    return tuple(no_camera(name, known) for name in asked if canonical_name(name) not in known)[:_MOST_NOTICES]


def _group_codes(snapshot: Snapshot, name: str) -> np.ndarray:
    """A number for each row, equal for rows of one group; rows without a value have one of their own."""
    codes = snapshot.column(name).codes.astype(np.int64)
    alone = codes < 0
    codes[alone] = -1 - np.arange(int(alone.sum()))
    return codes


def _plain(value: Any) -> Any:
    """A column's value as JSON has it."""
    return value.isoformat() if isinstance(value, datetime) else value
