"""The rows of some cameras of one version: all that a search within them can tell of.

Who may see some cameras only must learn nothing of the others: not by a hit or a count, nor by the name of a column, an error, or
a version number. No condition of a filter can fail at a row (see `filters`), so filters are evaluated over the whole table and what
they let through is cut down to these rows.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Integer

from tbps.gallery.store.filters import Condition
from tbps.gallery.store.rows import Rows
from tbps.gallery.store.schema import OWN_KINDS
from tbps.gallery.store.spread import Spread

Passing = Callable[[Condition, Mapping[str, str]], Integer[np.ndarray, " P"]]

_VERSION_BITS = 48  # JavaScript holds whole numbers of 53


@final
class Scope:
    """Ascending positions of the rows of some cameras, and what filters let through among them.

    kinds: the columns that there are for these cameras: those of every gallery, and those of which some row here has a value.
    """

    def __init__(
        self, cameras: tuple[str, ...], positions: Integer[np.ndarray, " M"], rows: Rows, kinds: Mapping[str, str]
    ) -> None:
        """kinds: as `VisibleKinds`, which looks at the rows when it is asked."""
        self.cameras, self.positions, self.kinds = cameras, positions, kinds
        self._rows = rows

    def __contains__(self, position: int) -> bool:
        at = int(np.searchsorted(self.positions, position))
        return at < len(self.positions) and int(self.positions[at]) == position

    @cached_property
    def spread(self) -> Spread:
        """How the embeddings of these rows are spread."""
        return Spread(self._rows.embeddings[self.positions])

    @cached_property
    def version(self) -> int:
        """A number that changes when rows come to these cameras or go, and not with those of others."""
        words = self._rows.ids[self.positions].view(np.uint64).reshape(-1, 3)
        mixed = np.concatenate([words.sum(axis=0, dtype=np.uint64), np.bitwise_xor.reduce(words, axis=0)])
        digest = hashlib.sha256(f"{len(words)} {self.cameras}".encode() + mixed.tobytes()).digest()
        return int.from_bytes(digest[:8], "big") >> (64 - _VERSION_BITS)

    def passing(self, condition: Condition, passing: Passing) -> Integer[np.ndarray, " P"]:
        """Ascending positions of the rows that a condition lets through; `passing`: those of the whole version.

        Raises QueryError on a condition that names a column which is not there for these cameras.
        """
        return np.intersect1d(passing(condition, self.kinds), self.positions, assume_unique=True)


@final
class VisibleKinds(Mapping[str, str]):
    """The kinds of those columns of which some rows have a value; a column is looked at when it is asked for."""

    def __init__(self, kinds: Mapping[str, str], has_value: Callable[[str], bool]) -> None:
        self._kinds, self._has_value = kinds, has_value
        self._known: dict[str, bool] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._kinds or not self._visible(name):
            raise KeyError(name)
        return self._kinds[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._kinds if self._visible(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _visible(self, name: str) -> bool:
        if name in OWN_KINDS:
            return True
        if name not in self._known:
            self._known[name] = self._has_value(name)
        return self._known[name]
