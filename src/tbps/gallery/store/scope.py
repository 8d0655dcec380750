"""Restricts a version to the rows of some cameras, for callers that may see these cameras only.

Such a caller must learn nothing about other cameras: not from hits or counts, nor from column names, errors or version numbers.
Evaluating a filter never fails on a row (see `filters`), so filters are evaluated over the whole table, and their result is then
restricted to these rows.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Integer

from tbps.gallery.store.filters import Condition
from tbps.gallery.store.moments import Moments
from tbps.gallery.store.rows import Rows
from tbps.gallery.store.schema import OWN_KINDS

Passing = Callable[[Condition, Mapping[str, str]], Integer[np.ndarray, " P"]]

_VERSION_BITS = 48  # JavaScript represents whole numbers of up to 53 bits exactly


@final
class Scope:
    """Ascending positions of the rows of some cameras.

    kinds: the columns that filters may name: those that every gallery has, and those in which one of these rows has a value.
    """

    def __init__(
        self, cameras: tuple[str, ...], positions: Integer[np.ndarray, " M"], rows: Rows, kinds: Mapping[str, str]
    ) -> None:
        """kinds: a `VisibleKinds`, which reads a column when it is looked up."""
        self.cameras, self.positions, self.kinds = cameras, positions, kinds
        self._rows = rows

    def __contains__(self, position: int) -> bool:
        at = int(np.searchsorted(self.positions, position))
        return at < len(self.positions) and int(self.positions[at]) == position

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance of the embeddings of these rows."""
        return Moments(self._rows.embeddings[self.positions])

    @cached_property
    def version(self) -> int:
        """A version number that changes only when rows of these cameras are added or removed."""
        words = self._rows.ids[self.positions].view(np.uint64).reshape(-1, 3)
        mixed = np.concatenate([words.sum(axis=0, dtype=np.uint64), np.bitwise_xor.reduce(words, axis=0)])
        digest = hashlib.sha256(f"{len(words)} {self.cameras}".encode() + mixed.tobytes()).digest()
        return int.from_bytes(digest[:8], "big") >> (64 - _VERSION_BITS)

    def passing(self, condition: Condition, passing: Passing) -> Integer[np.ndarray, " P"]:
        """Ascending positions of the rows that satisfy a condition; `passing`: `Version.passing`.

        Raises QueryError on a column that is not in `kinds`.
        """
        return np.intersect1d(passing(condition, self.kinds), self.positions, assume_unique=True)


@final
class VisibleKinds(Mapping[str, str]):
    """A mapping of the columns in which some row of a scope has a value, to their kinds; reads a column when it is looked up."""

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
