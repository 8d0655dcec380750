"""Ids and embeddings of one version of a table in memory; a later version that only adds rows shares the memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from jaxtyping import Float32, Integer, Shaped, UInt64

_SPARE = 4096
_GATHERED = 256  # rows per block: gathering blocks that fit the cache is three times faster than gathering all rows at once


@dataclass(slots=True)
class _Room:
    """Preallocated arrays, of which the first `used` rows are filled."""

    row_ids: np.ndarray
    ids: np.ndarray
    embeddings: np.ndarray
    used: int


@final
@dataclass(frozen=True)
class Rows:
    """Row ids (the table's own, ascending), ids and unit embeddings of a version.

    `room` is the memory that holds them: rows at the same position of the same room are the same rows.
    """

    room: _Room = field(repr=False)
    count: int

    @classmethod
    def room_for(cls, count: int, dim: int) -> "Rows":
        """Returns an empty object with memory for `count` rows and some more, so that an addition does not copy."""
        size = count + count // 8 + _SPARE
        # Zeros, since memory that was freed before may hold embeddings and ids of images that were erased.
        room = _Room(np.zeros(size, np.uint64), np.zeros(size, "S24"), np.zeros((size, dim), np.float32), 0)
        return cls(room, 0)

    def extended(
        self,
        row_ids: UInt64[np.ndarray, " M"],
        ids: Shaped[np.ndarray, " M"],
        embeddings: Float32[np.ndarray, "M D"],
    ) -> "Rows":
        """Returns these rows followed by M more; this object itself does not change."""
        room, total = self.room, self.count + len(row_ids)
        if room.used != self.count or total > len(room.row_ids):
            moved = Rows.room_for(total, self.room.embeddings.shape[1])
            return moved.extended(self.row_ids, self.ids, self.embeddings).extended(row_ids, ids, embeddings)
        behind = slice(self.count, total)
        room.row_ids[behind], room.ids[behind], room.embeddings[behind] = row_ids, ids, embeddings
        room.used = total
        return Rows(room, total)

    @property
    def row_ids(self) -> UInt64[np.ndarray, " N"]:
        """The table's row ids."""
        return self.room.row_ids[: self.count]

    @property
    def ids(self) -> Shaped[np.ndarray, " N"]:
        """The images' ids, ASCII bytes."""
        return self.room.ids[: self.count]

    @property
    def embeddings(self) -> Float32[np.ndarray, "N D"]:
        """Unit rows."""
        return self.room.embeddings[: self.count]


def read_rows(handle: Any, before: Rows | None = None, hidden: Sequence[bytes] = ()) -> tuple[Rows, UInt64[np.ndarray, " M"]]:
    """Reads the rows of an open LanceDB table except those with hidden ids; returns them and the row ids of the hidden rows.

    before: the rows of an older version. If the table has only grown since, only its new rows are read.
    """
    count = handle.count_rows()
    if before is not None and before.count and _begins_with(handle, before):
        # Row ids only increase: if the rows with larger ids account for the difference in count, no known row was removed or moved.
        newer = f"_rowid > {int(before.row_ids[-1])}"
        if before.count + handle.count_rows(newer) == count:
            return _scan(before, handle.search().where(newer), hidden)
    dim = handle.schema.field("embedding").type.list_size
    return _scan(Rows.room_for(count, dim), handle.search(), hidden)


def gathered_products(
    matrix: Float32[np.ndarray, "N D"], rows: Integer[np.ndarray, " M"], query: Float32[np.ndarray, " D"]
) -> Float32[np.ndarray, " M"]:
    """Computes `matrix[rows] @ query` without copying all of these rows at once."""
    products = np.empty(len(rows), np.float32)
    block = np.empty((_GATHERED, matrix.shape[1]), np.float32)
    for start in range(0, len(rows), _GATHERED):
        some = rows[start : start + _GATHERED]
        np.take(matrix, some, axis=0, out=block[: len(some)], mode="clip")  # "raise" would buffer the result
        np.dot(block[: len(some)], query, out=products[start : start + len(some)])
    return products


def _begins_with(handle: Any, before: Rows) -> bool:
    """Whether the table still holds the last known row unchanged: false if it was rewritten, or deleted and created again."""
    last = handle.search().where(f"_rowid = {int(before.row_ids[-1])}").select(["id", "embedding"]).to_arrow()
    if not len(last):
        return False
    same = np.array_equal(last.column("embedding").combine_chunks().flatten().to_numpy(), before.embeddings[-1])
    return same and last.column("id")[0].as_py() == before.ids[-1].decode()


def _scan(rows: Rows, query: Any, hidden: Sequence[bytes]) -> tuple[Rows, UInt64[np.ndarray, " M"]]:
    """Extends the rows by those of a LanceDB query; returns them and the row ids of the hidden rows that were left out."""
    start, gone = rows.count, [np.zeros(0, np.uint64)]
    for batch in query.select(["id", "embedding"]).with_row_id(True).to_batches():
        row_ids, ids = batch.column("_rowid").to_numpy(), batch.column("id").to_numpy(zero_copy_only=False).astype("S24")
        embeddings = batch.column("embedding").flatten().to_numpy().reshape(batch.num_rows, -1)
        if len(hidden):
            shown = ~np.isin(ids, np.array(hidden, "S24"))
            gone.append(row_ids[~shown])
            row_ids, ids, embeddings = row_ids[shown], ids[shown], embeddings[shown]
        rows = rows.extended(row_ids, ids, embeddings)
    if not (np.diff(rows.row_ids[start:].astype(np.int64)) > 0).all():
        order = np.append(np.arange(start), start + np.argsort(rows.row_ids[start:]))
        empty = Rows.room_for(rows.count, rows.embeddings.shape[1])
        rows = empty.extended(rows.row_ids[order], rows.ids[order], rows.embeddings[order])
    return rows, np.concatenate(gone)
