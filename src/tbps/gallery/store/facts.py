"""What hits tell of their rows, but for the thumbnail, in memory: about 100 bytes a row."""

from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Integer

from tbps.gallery.store.schema import HIT_COLUMNS

FACTS = HIT_COLUMNS
_MANY_CHUNKS = 64


@final
class Facts:
    """The columns `FACTS` of the rows of one version, in the order of their row ids."""

    def __init__(self, found: Any, before: "Facts | None" = None) -> None:
        """found: an Arrow table of `FACTS` and `_rowid` in any order; before: the facts of the rows in front of them."""
        ordered = found.take(np.argsort(found.column("_rowid").to_numpy())).select(FACTS)
        whole = ordered if before is None else pa.concat_tables([before._table, ordered])
        self._table: Any = whole.combine_chunks() if whole.column(0).num_chunks > _MANY_CHUNKS else whole

    def at(self, positions: Integer[np.ndarray, " M"]) -> list[dict[str, Any]]:
        """The facts of some rows, in that order."""
        return list(self._table.take(positions).to_pylist())
