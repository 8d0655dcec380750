"""From a query to a page of hits: direction, filter, nearest rows, re-ranking, groups, estimates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from tbps.errors import GalleryError, QueryError, UnknownIdError
from tbps.search.calibration import calibration_of, line_at
from tbps.search.compose import Direction, compose, named
from tbps.search.encoder import Encoder
from tbps.search.engine import Engine
from tbps.search.filters import Filter, between, equal, written
from tbps.search.hits import Group, Line, Page
from tbps.search.query import Query
from tbps.search.rerank import reranked
from tbps.search.scope import Scope
from tbps.search.sources import Picture
from tbps.search.version import Snapshot

MEMBERS = 1000
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
        return answer(engine.at(query.version))
    except (GalleryError, QueryError):
        engine.at(query.version)  # says that it is gone, if writers removed its files meanwhile
        raise


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
    direction = compose(query, pictures, model, known(snapshot, scope, named(query)))
    passing = _passing(snapshot, scope, _filter(query, snapshot))
    search = _Search(asked.engine, snapshot, direction, query, passing)
    images = snapshot.rows.count if scope is None else len(scope.positions)
    calibration = calibration_of(model) if direction.plain and not query.rerank and images else None
    wanted = query.offset + query.k
    depth = wanted if calibration is None else max(wanted, _LINE_DEPTH)
    if query.group is None:
        ranking, codes = search.ranking(depth), None
        total = snapshot.rows.count if passing is None else len(passing)
    else:
        codes = _group_codes(snapshot, query.group)
        ranking = search.grouped(depth, codes)
        total = len(np.unique(codes if passing is None else codes[passing]))
    shown = slice(query.offset, wanted)
    hits = snapshot.hits(ranking.positions[shown], ranking.scores[shown], query.offset + 1, asked.thumbnails)
    if codes is not None and query.group is not None:
        hits = [
            replace(hit, group=search.group(query.group, codes, position))
            for hit, position in zip(hits, ranking.positions[shown].tolist(), strict=True)
        ]
    line = None
    if calibration is not None:
        z = (snapshot if scope is None else scope).spread.z(direction.vector, ranking.scores)
        chances = calibration.chances(z, images)
        hits = [replace(hit, chance=float(chance)) for hit, chance in zip(hits, chances[shown], strict=True)]
        line = Line(*line_at(chances[:_LINE_DEPTH], query.share))
    following = query.model_copy(update={"offset": wanted, "version": snapshot.version}) if total > wanted else None
    return Page(tuple(hits), total, snapshot.version, following, line, ranking.approximate, direction.notices)


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
    positions = np.flatnonzero(snapshot.rows.ids == name.encode("ascii", "replace"))
    if not len(positions) or (scope is not None and int(positions[0]) not in scope):
        raise UnknownIdError(f"no image of the gallery has the id {name!r}; ids are those of hits")
    return int(positions[0])


def known(snapshot: Snapshot, scope: Scope | None, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The embeddings of images by id. Raises UnknownIdError."""
    return {name: snapshot.rows.embeddings[position_of(snapshot, scope, name)].astype(np.float64) for name in names}


def _passing(snapshot: Snapshot, scope: Scope | None, filtered: Filter | None) -> np.ndarray | None:
    """Ascending positions of the rows that there are for who asks and that pass; None for all."""
    if filtered is None:
        return None if scope is None else scope.positions
    return snapshot.passing(filtered) if scope is None else scope.passing(filtered)


def _filter(query: Query, snapshot: Snapshot) -> Filter | None:
    """All conditions of a query as one."""
    structured = between(query.since, query.until)
    if query.cameras:
        structured.append(equal("camera", query.cameras, snapshot.kinds))
    structured += [equal(column, (value,), snapshot.kinds) for column, value in query.equals.items()]
    if query.where is None:
        return Filter(f"({' and '.join(structured)})", " and ".join(structured)) if structured else None
    by_hand = written(query.where)
    return Filter(f"({' and '.join([by_hand.clause, *structured])})", query.where) if structured else by_hand


def _group_codes(snapshot: Snapshot, name: str) -> np.ndarray:
    """A number for each row, equal for rows of one group; rows without a value have one of their own."""
    if snapshot.kinds.get(name) in (None, "JSON text"):
        known = ", ".join(column for column, kind in snapshot.kinds.items() if kind != "JSON text")
        raise QueryError(f"unknown column {name!r} to group by. Columns: {known}")
    codes = snapshot.column(name).codes.astype(np.int64)
    alone = codes < 0
    codes[alone] = -1 - np.arange(int(alone.sum()))
    return codes


def _plain(value: Any) -> Any:
    """A column's value as JSON has it."""
    return value.isoformat() if isinstance(value, datetime) else value
