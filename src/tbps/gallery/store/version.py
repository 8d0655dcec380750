"""One version of a gallery's table: rows, columns and filters in memory, hits told of."""

import json
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Integer

from tbps.gallery.store.database import talking_to
from tbps.gallery.store.facts import FACTS, Facts
from tbps.gallery.store.filter_sql import sql_of
from tbps.gallery.store.filters import Condition
from tbps.gallery.store.hit import Hit
from tbps.gallery.store.numbers import canonical_name
from tbps.gallery.store.rows import Rows
from tbps.gallery.store.schema import filter_kinds
from tbps.gallery.store.scope import Scope, VisibleKinds
from tbps.gallery.store.spread import Spread

_FILTERS_KEPT = 16
_SCOPES_KEPT = 8
_NAMES = ("identity", "camera")  # version 0.1 kept a number that was given as 7.0 apart from 7


@final
class Snapshot:
    """One version of the table, read only: its own handle, every row's id and embedding in memory.

    before: an older one, of which the rows in memory are used where the table has only grown; hidden: ids of rows that are being
    erased, which are left out as if they were gone already.
    """

    def __init__(self, folder: Path, handle: Any, before: "Snapshot | None" = None, hidden: Collection[str] = ()) -> None:
        before = None if hidden else before
        self._hidden = np.array(sorted(hidden), "S24")
        self._gone = np.zeros(0, np.uint64)  # row ids of the hidden rows
        self.folder = folder
        self._handle = handle
        self.version: int = handle.version
        self.kinds = filter_kinds(handle.schema)
        self.rows: Rows = self._read(None if before is None else before.rows)
        self._facts: Facts | None = None
        if before is not None and before._facts is not None:
            self.hold(before)
        self._passing: dict[str, Integer[np.ndarray, " M"]] = {}
        self._columns: dict[str, Column] = {}
        self._scopes: dict[tuple[str, ...], Scope] = {}

    def hold(self, before: "Snapshot | None" = None) -> None:
        """Reads what hits tell of their rows into memory, thumbnails aside; only the newer rows where `before` has grown."""
        query, known = self._handle.search(), None
        if before is not None and before.rows.room is self.rows.room and before.rows.count:
            query, known = query.where(f"_rowid > {int(before.rows.row_ids[-1])}"), before._facts
        with talking_to(self.folder):
            self._facts = Facts(_without(query.select(FACTS).with_row_id(True).to_arrow(), self._gone), known)

    def scope(self, cameras: Sequence[str]) -> Scope:
        """The rows of some cameras; those of the last few choices are remembered."""
        wanted = tuple(sorted({canonical_name(camera) for camera in cameras}))
        if (known := self._scopes.get(wanted)) is not None:
            return known
        column = self.column("camera")
        codes = [code for code, camera in enumerate(column.values) if camera in wanted]
        positions = np.flatnonzero(np.isin(column.codes, codes))

        # Not `self`: a scope that refers to its snapshot would keep both in memory after the snapshot was let go.
        own = weakref.ref(self)

        def has_value(name: str) -> bool:
            snapshot = own()
            assert snapshot is not None  # who asks a scope holds its snapshot
            return bool((snapshot.column(name).codes[positions] >= 0).any())

        scope = Scope(wanted, positions, self.rows, VisibleKinds(self.kinds, has_value))
        self._scopes = dict([*self._scopes.items(), (wanted, scope)][-_SCOPES_KEPT:])
        return scope

    def passing(self, condition: Condition, kinds: Mapping[str, str] | None = None) -> Integer[np.ndarray, " M"]:
        """Ascending positions of the rows that a condition lets through; those of the last few conditions are remembered.

        kinds: the columns that there are for who asks, all of the table where None.
        Raises QueryError on a column that is not among them, and on a value that does not fit its column.
        """
        clause = sql_of(condition, self.kinds if kinds is None else kinds)
        if (known := self._passing.get(clause)) is not None:
            return known
        with talking_to(self.folder):
            found = _without(self._handle.search().where(clause).select(["id"]).with_row_id(True).to_arrow(), self._gone)
        positions = np.searchsorted(self.rows.row_ids, np.sort(found.column("_rowid").to_numpy()))
        self._passing = dict([*self._passing.items(), (clause, positions)][-_FILTERS_KEPT:])
        return positions

    @cached_property
    def spread(self) -> Spread:
        """How the embeddings are spread."""
        return Spread(self.rows.embeddings)

    def column(self, name: str) -> "Column":
        """The values of a filter column for every row, in memory from the first time on."""
        if name not in self._columns:
            with talking_to(self.folder):
                found = _without(self._handle.search().select([name]).with_row_id(True).to_arrow(), self._gone)
            order = np.argsort(found.column("_rowid").to_numpy())
            encoded = found.column(name).combine_chunks().dictionary_encode()
            column = Column(encoded.indices.fill_null(-1).to_numpy()[order], encoded.dictionary.to_pylist())
            self._columns = self._columns | {name: _canonical(column) if name in _NAMES else column}
        return self._columns[name]

    def hits(
        self,
        positions: Integer[np.ndarray, " hits"],
        scores: Float64[np.ndarray, " hits"],
        first: int = 1,
        thumbnails: bool = True,
    ) -> list[Hit]:
        """The rows at `positions`, in that order, as hits ranked from `first` on; without `thumbnails` theirs are empty."""
        if not len(positions):
            return []
        read = ["thumbnail"] if thumbnails else []
        if self._facts is None:
            rows = self._taken(positions, [*FACTS, *read])
        else:
            rows = self._facts.at(positions)
            if thumbnails:
                rows = [held | taken for held, taken in zip(rows, self._taken(positions, read), strict=True)]
        return [_hit(rank, float(score), row) for rank, (score, row) in enumerate(zip(scores, rows, strict=True), start=first)]

    def _taken(self, positions: Integer[np.ndarray, " hits"], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of some rows from disk, in that order."""
        with talking_to(self.folder):
            wanted = [int(row) for row in self.rows.row_ids[positions]]
            taken = self._handle.take_row_ids(wanted).select(sorted({"id", *columns})).to_arrow().to_pylist()
            rows = {row["id"]: row for row in taken}
            return [rows[name.decode()] for name in self.rows.ids[positions]]

    def _read(self, before: Rows | None) -> Rows:
        with talking_to(self.folder):
            count = self._handle.count_rows()
            if before is not None and before.count and self._begins_with(before):
                # Row ids only rise: if the rows above the last known one make up the difference, no known row is gone or moved.
                newer = f"_rowid > {int(before.row_ids[-1])}"
                if before.count + self._handle.count_rows(newer) == count:
                    return self._scan(before, self._handle.search().where(newer))
            dim = self._handle.schema.field("embedding").type.list_size
            return self._scan(Rows.room_for(count, dim), self._handle.search())

    def _begins_with(self, before: Rows) -> bool:
        """Whether the last known row is what it was; it is not in a table that was rewritten, or removed and made again."""
        last = self._handle.search().where(f"_rowid = {int(before.row_ids[-1])}").select(["id", "embedding"]).to_arrow()
        if not len(last):
            return False
        same = np.array_equal(last.column("embedding").combine_chunks().flatten().to_numpy(), before.embeddings[-1])
        return same and last.column("id")[0].as_py() == before.ids[-1].decode()

    def _scan(self, rows: Rows, query: Any) -> Rows:
        """The rows with those of a query behind them."""
        start = rows.count
        for batch in query.select(["id", "embedding"]).with_row_id(True).to_batches():
            row_ids, ids = batch.column("_rowid").to_numpy(), batch.column("id").to_numpy(zero_copy_only=False).astype("S24")
            embeddings = batch.column("embedding").flatten().to_numpy().reshape(batch.num_rows, -1)
            if len(self._hidden):
                shown = ~np.isin(ids, self._hidden)
                self._gone = np.append(self._gone, row_ids[~shown])
                row_ids, ids, embeddings = row_ids[shown], ids[shown], embeddings[shown]
            rows = rows.extended(row_ids, ids, embeddings)
        if (np.diff(rows.row_ids[start:].astype(np.int64)) > 0).all():
            return rows
        order = np.append(np.arange(start), start + np.argsort(rows.row_ids[start:]))
        empty = Rows.room_for(rows.count, rows.embeddings.shape[1])
        return empty.extended(rows.row_ids[order], rows.ids[order], rows.embeddings[order])


@dataclass(frozen=True, slots=True)
class Column:
    """codes: for each row the place of its value in `values`, -1 for null."""

    codes: Integer[np.ndarray, " N"]
    values: Sequence[Any]


def _canonical(column: Column) -> Column:
    """A column of names with those joined that are spellings of one number."""
    names = [canonical_name(value) for value in column.values]
    if names == column.values:
        return column
    distinct = list(dict.fromkeys(names))
    places = {name: code for code, name in enumerate(distinct)}
    joined = np.array([*(places[name] for name in names), -1], column.codes.dtype)  # -1 stays -1
    return Column(joined[column.codes], distinct)


def _no_number(_: str) -> None:
    """NaN and infinities, which version 0.1 wrote into attributes, and which are no JSON."""


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
        attributes=json.loads(row["attributes"], parse_constant=_no_number),
        thumbnail=row.get("thumbnail", b""),
    )
