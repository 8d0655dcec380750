"""The rows of some cameras of one version: all that a search within them can tell of.

Who may see some cameras only must learn nothing of the others, not even by an error: in SQL a condition such as
`1 / cast(age - 30 as int) < 2` fails where a row of that age is looked at. So conditions are evaluated over a copy of these rows in
memory that holds no other.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Integer

from tbps.search.calibration import Spread
from tbps.search.database import lancedb
from tbps.search.filters import Filter, about_filter, refusal
from tbps.search.rows import Rows

_PLACE = "PLACE"  # no metadata column is written in capitals


@final
class Scope:
    """Ascending positions of rows, and what filters let through among them.

    read: the columns that a filter may name, of these rows in the order of their positions, as an Arrow table.
    """

    def __init__(self, positions: Integer[np.ndarray, " M"], rows: Rows, kinds: Mapping[str, str], read: Callable[[], Any]) -> None:
        self.positions = positions
        self._rows, self._kinds, self._read = rows, kinds, read
        self._table: Any = None

    def __contains__(self, position: int) -> bool:
        at = int(np.searchsorted(self.positions, position))
        return at < len(self.positions) and int(self.positions[at]) == position

    @cached_property
    def spread(self) -> Spread:
        """How the embeddings of these rows are spread."""
        return Spread(self._rows.embeddings[self.positions])

    def passing(self, filtered: Filter) -> Integer[np.ndarray, " P"]:
        """Ascending positions of the rows that a filter lets through. Raises QueryError on a filter that cannot be read."""
        if self._table is None:
            rows = self._read()
            places = pa.array(np.arange(len(rows)), pa.int64())
            self._table = lancedb.connect("memory://").create_table("scope", data=rows.append_column(_PLACE, places))
        try:
            found = self._table.search().where(filtered.clause).select([_PLACE]).to_arrow()
        except (ValueError, RuntimeError) as error:
            if not about_filter(error):
                raise
            raise refusal(filtered.text, error, self._kinds) from error
        return np.asarray(self.positions[np.sort(found.column(_PLACE).to_numpy())])
