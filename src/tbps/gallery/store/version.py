"""One version of a gallery's table: nearest-neighbour search, filters, columns and hits."""

import json
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Integer, Shaped

from tbps.gallery.store.database import talking_to
from tbps.gallery.store.details import Details
from tbps.gallery.store.filter_sql import sql_of
from tbps.gallery.store.filters import Condition
from tbps.gallery.store.hit import Hit
from tbps.gallery.store.moments import Moments
from tbps.gallery.store.numbers import canonical_name
from tbps.gallery.store.rows import Rows, gathered_products, read_rows
from tbps.gallery.store.schema import HIT_COLUMNS, filter_kinds
from tbps.gallery.store.scope import Scope, VisibleKinds
from tbps.gallery.store.staleness import State, reading

Shortlist = Callable[[Rows, Float64[np.ndarray, " D"], int, np.ndarray | None], np.ndarray | None]

_FILTERS_KEPT = 16
_SCOPES_KEPT = 8
_BLOCK = 65_536
_NAMES = ("identity", "camera")  # version 0.1 stored the numbers 7.0 and 7 as different names


@dataclass(frozen=True, slots=True)
class Found:
    """Positions and exact cosines of the nearest rows, best first. `approximate`: a better row may have been missed."""

    positions: Integer[np.ndarray, " hits"]
    scores: Float64[np.ndarray, " hits"]
    approximate: bool


@dataclass(frozen=True, slots=True)
class ExactIndex:
    """Exact nearest neighbours by one matrix product. ids: ASCII bytes; embeddings: unit rows."""

    ids: Shaped[np.ndarray, " N"]
    embeddings: Float32[np.ndarray, "N D"]

    def top(
        self, query: Float64[np.ndarray, " D"], k: int, rows: Integer[np.ndarray, " M"] | None = None
    ) -> tuple[Integer[np.ndarray, " hits"], Float64[np.ndarray, " hits"]]:
        """Positions and cosines of the `k` best of all rows, or of the positions in `rows`; equal scores are ordered by id.

        query: a unit vector. The float32 product only picks candidates; those are scored again in float64, row by
        row, so that a score depends neither on the position of a row nor on the filter, and the order is that of float64.
        """
        return self.ranked(query, self.candidates(query, k, rows), k)

    def candidates(
        self, query: Float64[np.ndarray, " D"], k: int, rows: Integer[np.ndarray, " M"] | None = None
    ) -> Integer[np.ndarray, " candidates"]:
        """Positions that certainly include the `k` best of all rows, or of the positions in `rows`."""
        scores = self._rough(query.astype(np.float32), rows)
        if len(scores) > k:
            # Twice the bound n * u on the rounding of a float32 dot product of unit vectors of n components.
            margin = 2 * len(query) * np.finfo(np.float32).eps
            threshold = np.partition(scores, len(scores) - k)[len(scores) - k] - margin
            chosen = np.flatnonzero(scores >= threshold)
        else:
            chosen = np.arange(len(scores))
        return chosen if rows is None else rows[chosen]

    def ranked(
        self, query: Float64[np.ndarray, " D"], candidates: Integer[np.ndarray, " M"], k: int
    ) -> tuple[Integer[np.ndarray, " hits"], Float64[np.ndarray, " hits"]]:
        """Positions and float64 cosines of the `k` best of a few candidates."""
        blocks = [np.zeros(0)]
        for start in range(0, len(candidates), _BLOCK):
            block = self.embeddings[candidates[start : start + _BLOCK]].astype(np.float64)
            blocks.append((block * query).sum(axis=1))
        exact = np.clip(np.concatenate(blocks), -1.0, 1.0)
        order = np.lexsort((self.ids[candidates], -exact))[:k]
        return candidates[order], exact[order]

    def _rough(self, query: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        if rows is None:
            return np.asarray(self.embeddings @ query)
        if 2 * len(rows) < len(self.embeddings):  # gathering few rows is cheaper than scoring all
            return gathered_products(self.embeddings, rows, query)
        return np.asarray((self.embeddings @ query)[rows])


@final
class Version:
    """One committed version of a table, read only; the id and embedding of every row are in memory.

    Reading raises StaleVersionError if a writer has removed the files of this version meanwhile.

    opened: the state of the gallery before `handle` was opened. before: an older version, whose rows in memory are shared if the
    table has only grown since. hidden: ids of rows that are being erased, which are left out. shortlist: function that returns
    candidates for the nearest rows; if it is None or returns None, every row is compared.
    """

    def __init__(
        self,
        folder: Path,
        handle: Any,
        opened: State,
        before: "Version | None" = None,
        hidden: Collection[str] = (),
        shortlist: Shortlist | None = None,
    ) -> None:
        before = None if hidden else before
        self.folder, self.opened = folder, opened
        self._handle, self._shortlist = handle, shortlist
        self.number: int = handle.version
        self.kinds = filter_kinds(handle.schema)
        with self._reading():
            read = read_rows(handle, None if before is None else before.rows, [id.encode() for id in sorted(hidden)])
        self.rows: Rows = read[0]
        self._gone: Integer[np.ndarray, " M"] = read[1]  # row ids of the hidden rows
        self._details: Details | None = None
        if before is not None and before._details is not None:
            self.hold(before)
        self._passing: dict[str, Integer[np.ndarray, " M"]] = {}
        self._columns: dict[str, EncodedColumn] = {}
        self._scopes: dict[tuple[str, ...], Scope] = {}

    def top(self, vector: Float64[np.ndarray, " D"], k: int, passing: Integer[np.ndarray, " M"] | None = None) -> Found:
        """The `k` nearest rows to a unit vector, among the ascending positions in `passing` if given; equal scores by id."""
        candidates = None if self._shortlist is None else self._shortlist(self.rows, vector, k, passing)
        approximate = candidates is not None
        if candidates is None:
            candidates = self.exact.candidates(vector, k, passing)
        return Found(*self.exact.ranked(vector, candidates, k), approximate)

    @cached_property
    def exact(self) -> ExactIndex:
        """Exact search over all rows."""
        return ExactIndex(self.rows.ids, self.rows.embeddings)

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance of the embeddings."""
        return Moments(self.rows.embeddings)

    def hold(self, before: "Version | None" = None) -> None:
        """Reads the columns of hits, except thumbnails, into memory; reuses those of `before` for the rows that it shares."""
        query, known = self._handle.search(), None
        if before is not None and before.rows.room is self.rows.room and before.rows.count:
            query, known = query.where(f"_rowid > {int(before.rows.row_ids[-1])}"), before._details
        with self._reading():
            found = query.select(HIT_COLUMNS).with_row_id(True).to_arrow()
        self._details = Details(_without(found, self._gone), known)

    def scope(self, cameras: Sequence[str]) -> Scope:
        """The rows of some cameras; the last few scopes are cached."""
        wanted = tuple(sorted({canonical_name(camera) for camera in cameras}))
        if (known := self._scopes.get(wanted)) is not None:
            return known
        column = self.column("camera")
        codes = [code for code, camera in enumerate(column.values) if camera in wanted]
        positions = np.flatnonzero(np.isin(column.codes, codes))

        # Not `self`: a scope that refers to its version would keep both in memory after the version was released.
        own = weakref.ref(self)

        def has_value(name: str) -> bool:
            version = own()
            assert version is not None  # the caller of a scope holds its version
            return bool((version.column(name).codes[positions] >= 0).any())

        scope = Scope(wanted, positions, self.rows, VisibleKinds(self.kinds, has_value))
        self._scopes = dict([*self._scopes.items(), (wanted, scope)][-_SCOPES_KEPT:])
        return scope

    def passing(self, condition: Condition, kinds: Mapping[str, str] | None = None) -> Integer[np.ndarray, " M"]:
        """Ascending positions of the rows that satisfy a condition; the results of the last few conditions are cached.

        kinds: the columns that the condition may name; None: all columns of the table.
        Raises QueryError on a column that is not among them, and on a value that does not fit its column.
        """
        clause = sql_of(condition, self.kinds if kinds is None else kinds)
        if (known := self._passing.get(clause)) is not None:
            return known
        with self._reading():
            found = self._handle.search().where(clause).select(["id"]).with_row_id(True).to_arrow()
        row_ids = np.sort(_without(found, self._gone).column("_rowid").to_numpy())
        positions = np.searchsorted(self.rows.row_ids, row_ids)
        self._passing = dict([*self._passing.items(), (clause, positions)][-_FILTERS_KEPT:])
        return positions

    def column(self, name: str) -> "EncodedColumn":
        """The values of a filter column for every row; kept in memory once read."""
        if name not in self._columns:
            with self._reading():
                found = self._handle.search().select([name]).with_row_id(True).to_arrow()
            found = _without(found, self._gone)
            order = np.argsort(found.column("_rowid").to_numpy())
            encoded = found.column(name).combine_chunks().dictionary_encode()
            column = EncodedColumn(encoded.indices.fill_null(-1).to_numpy()[order], encoded.dictionary.to_pylist())
            self._columns = self._columns | {name: _canonical(column) if name in _NAMES else column}
        return self._columns[name]

    def hits(
        self,
        positions: Integer[np.ndarray, " hits"],
        scores: Float64[np.ndarray, " hits"],
        first: int = 1,
        thumbnails: bool = True,
    ) -> list[Hit]:
        """The rows at `positions`, in that order, as hits with ranks from `first`. thumbnails: False leaves them empty."""
        if not len(positions):
            return []
        read = ["thumbnail"] if thumbnails else []
        if self._details is None:
            rows = self._taken(positions, [*HIT_COLUMNS, *read])
        else:
            rows = self._details.at(positions)
            if thumbnails:
                rows = [held | taken for held, taken in zip(rows, self._taken(positions, read), strict=True)]
        return [_hit(rank, float(score), row) for rank, (score, row) in enumerate(zip(scores, rows, strict=True), start=first)]

    def _taken(self, positions: Integer[np.ndarray, " hits"], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Reads columns of the rows at `positions` from disk, in that order."""
        wanted = [int(row) for row in self.rows.row_ids[positions]]
        with self._reading():
            taken = self._handle.take_row_ids(wanted).select(sorted({"id", *columns})).to_arrow()
        rows = {row["id"]: row for row in taken.to_pylist()}
        return [rows[id.decode()] for id in self.rows.ids[positions]]

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with reading(self.folder, self.opened), talking_to(self.folder):
            yield


@dataclass(frozen=True, slots=True)
class EncodedColumn:
    """A dictionary-encoded column. codes: for each row the index of its value in `values`, -1 for null."""

    codes: Integer[np.ndarray, " N"]
    values: Sequence[Any]


def _canonical(column: EncodedColumn) -> EncodedColumn:
    """A column of names in which the spellings of one number share a code."""
    names = [canonical_name(value) for value in column.values]
    if names == column.values:
        return column
    distinct = list(dict.fromkeys(names))
    places = {name: code for code, name in enumerate(distinct)}
    joined = np.array([*(places[name] for name in names), -1], column.codes.dtype)  # -1 stays -1
    return EncodedColumn(joined[column.codes], distinct)


def _null(_: str) -> None:
    """Replaces NaN and infinities with None: version 0.1 wrote them into attributes, but JSON has no such numbers."""


def _name(text: str | None) -> str | None:
    return None if text is None else canonical_name(text)


def _without(found: Any, gone: Integer[np.ndarray, " M"]) -> Any:
    """An Arrow table with the column `_rowid`, without the rows of some row ids."""
    return found if not len(gone) else found.filter(pa.array(~np.isin(found.column("_rowid").to_numpy(), gone)))


def _hit(rank: int, score: float, row: Mapping[str, Any]) -> Hit:
    captured = row["captured_at"]
    return Hit(
        rank=rank,
        score=score,
        id=row["id"],
        source=row["source"],
        root=row["root"],
        camera=_name(row["camera"]),
        captured_at=None if captured is None else captured.isoformat(),
        identity=_name(row["identity"]),
        attributes=json.loads(row["attributes"], parse_constant=_null),
        thumbnail=row.get("thumbnail", b""),
    )
