"""Keeps the columns of hits, except thumbnails, in memory: about 100 bytes per row."""

from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Integer

from tbps.gallery.store.schema import HIT_COLUMNS

_MANY_CHUNKS = 64


@final
class Details:
    """The columns `HIT_COLUMNS` of the rows of one version, in the order of their row ids."""

    def __init__(self, found: Any, before: "Details | None" = None) -> None:
        """found: an Arrow table of `HIT_COLUMNS` and `_rowid` in any order; before: the details of the preceding rows."""
        ordered = found.take(np.argsort(found.column("_rowid").to_numpy())).select(HIT_COLUMNS)
        whole = ordered if before is None else pa.concat_tables([before._table, ordered])
        self._table: Any = whole.combine_chunks() if whole.column(0).num_chunks > _MANY_CHUNKS else whole

    def at(self, positions: Integer[np.ndarray, " M"]) -> list[dict[str, Any]]:
        """The columns of the rows at `positions`, in that order."""
        return list(self._table.take(positions).to_pylist())
