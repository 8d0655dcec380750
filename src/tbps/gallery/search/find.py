"""Finds a page of hits for a query's vector: nearest rows that pass the filters, re-ranking, grouping, calibrated estimates."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from tbps.gallery.search.calibration import Calibration, cutoff_at
from tbps.gallery.search.compose import Composed
from tbps.gallery.search.conditions import camera_notices, passing_of
from tbps.gallery.search.page import Cutoff, Page
from tbps.gallery.search.query import Query
from tbps.gallery.search.rerank import reranked
from tbps.gallery.store.hit import Group
from tbps.gallery.store.scope import Scope
from tbps.gallery.store.version import Version

MEMBERS = 1000
_CUTOFF_DEPTH = 100  # number of hits among which the cutoff is determined


def find(
    version: Version,
    scope: Scope | None,
    query: Query,
    composed: Composed,
    calibration: Calibration | None = None,
    thumbnails: bool = True,
) -> Page:
    """Searches one version; returns one page of hits.

    scope: the rows that the caller may see, None for all; composed: the vector of the query; calibration: None for no estimates.
    Raises QueryError as `passing_of`.
    """
    group, passing = passing_of(query, version, scope)
    search = _Search(version, composed, query, passing)
    images = version.rows.count if scope is None else len(scope.positions)
    wanted = query.offset + query.k
    depth = wanted if calibration is None else max(wanted, _CUTOFF_DEPTH)
    codes = None if group is None else _group_codes(version, group)
    ranking = search.ranking(depth) if codes is None else search.grouped(depth, codes)
    total = images if passing is None else len(passing)
    if codes is not None:
        total = len(np.unique(codes if passing is None else codes[passing]))
    shown = slice(query.offset, wanted)
    hits = version.hits(ranking.positions[shown], ranking.scores[shown], query.offset + 1, thumbnails)
    if codes is not None and group is not None:
        best = ranking.positions[shown].tolist()
        hits = [replace(hit, group=search.group(group, codes, place)) for hit, place in zip(hits, best, strict=True)]
    cutoff = None
    if calibration is not None and images:
        z = (version if scope is None else scope).moments.z(composed.vector, ranking.scores)
        chances = calibration.chances(z, images)
        hits = [replace(hit, chance=float(chance)) for hit, chance in zip(hits, chances[shown], strict=True)]
        cutoff = Cutoff(*cutoff_at(chances[:_CUTOFF_DEPTH], query.share))
    number = version.number if scope is None else scope.version
    following = query.model_copy(update={"offset": wanted, "version": number}) if total > wanted else None
    notices = (*composed.notices, *camera_notices(query, version, scope))
    return Page(tuple(hits), total, number, following, cutoff, ranking.approximate, notices)


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Positions and cosines of rows, best first. complete: no further row passes the filters."""

    positions: np.ndarray
    scores: np.ndarray
    approximate: bool
    complete: bool


@dataclass(frozen=True, slots=True)
class _Search:
    """A search for one vector. passing: positions of the rows that pass the filters, None for all rows."""

    version: Version
    composed: Composed
    query: Query
    passing: np.ndarray | None

    def ranking(self, depth: int) -> _Ranking:
        """At least the first `depth` rows, re-ranked if the query asks for it."""
        count = max(depth, self.query.rerank)
        found = self.version.top(self.composed.vector, count, self.passing)
        positions, scores = found.positions, found.scores
        complete = len(positions) < count
        if self.query.rerank > 1 and len(positions) > 1:
            first = positions[: self.query.rerank]
            rows = self.version.rows.embeddings[first].astype(np.float64)
            order = np.arange(len(positions))
            order[: len(first)] = reranked(scores[: len(first)], rows @ rows.T, self.composed.by_text)
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
        """The group whose best row is at the position `best`."""
        members = np.flatnonzero(codes == codes[best])
        if self.passing is not None:
            at = np.minimum(np.searchsorted(self.passing, members), len(self.passing) - 1)
            members = members[self.passing[at] == members]
        ranked, _ = self.version.exact.top(self.composed.vector, MEMBERS, members)
        values, times = self.version.column(column), self.version.column("captured_at")
        seen = [times.values[code] for code in np.unique(times.codes[members]).tolist() if code >= 0]
        return Group(
            column=column,
            value=_plain(values.values[values.codes[best]]) if values.codes[best] >= 0 else None,
            count=len(members),
            first_seen=min(seen).isoformat() if seen else None,
            last_seen=max(seen).isoformat() if seen else None,
            ids=tuple(id.decode() for id in self.version.rows.ids[ranked].tolist()),
        )


def _group_codes(version: Version, column: str) -> np.ndarray:
    """The group code of each row; a row without a value forms a group of its own."""
    codes = version.column(column).codes.astype(np.int64)
    alone = codes < 0
    codes[alone] = -1 - np.arange(int(alone.sum()))
    return codes


def _plain(value: Any) -> Any:
    """Converts a column's value to a JSON value."""
    return value.isoformat() if isinstance(value, datetime) else value
