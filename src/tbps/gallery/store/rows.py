"""The embeddings of one version of a table in memory; a later version that only adds shares them."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float32, Shaped, UInt64

from tbps.gallery.store.index import ExactIndex

_SPARE = 4096


@dataclass(slots=True)
class _Room:
    """Memory with space behind the rows that are used so far."""

    row_ids: np.ndarray
    ids: np.ndarray
    embeddings: np.ndarray
    used: int


@final
@dataclass(frozen=True)
class Rows:
    """Row ids (the table's own, ascending), ids and unit embeddings of a version.

    `room` is the memory that they lie in: rows at the same position of the same room are the same rows.
    """

    room: _Room = field(repr=False)
    count: int

    @classmethod
    def room_for(cls, count: int, dim: int) -> "Rows":
        """No rows yet, in a room for `count` and some more, so that an addition does not copy."""
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
        """These rows and M more behind them, which this object does not see."""
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

    @cached_property
    def index(self) -> ExactIndex:
        """Exact search over all of them."""
        return ExactIndex(self.ids, self.embeddings)
