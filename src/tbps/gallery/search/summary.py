"""Summary of a gallery, or of some of its cameras: images, cameras, times, columns and their most frequent values."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from tbps.gallery.store.columns import as_name
from tbps.gallery.store.schema import told_kind
from tbps.gallery.store.scope import Scope
from tbps.gallery.store.version import EncodedColumn, Version

MOST_VALUES = 50
MOST_MEMBERS = 1000
_WITHOUT_VALUES = ("id", "source", "captured_at")  # nearly every image has one of its own


@dataclass(frozen=True, slots=True)
class Values:
    """A column that a filter may name; values: the most frequent values first, None for columns whose values rarely repeat."""

    name: str
    kind: str
    values: tuple[Any, ...] | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of the images of a gallery.

    cameras: names (None: images without a camera) with numbers of images; first_seen, last_seen: UTC, None without times.
    """

    images: int
    cameras: tuple[tuple[str | None, int], ...]
    columns: tuple[Values, ...]
    first_seen: datetime | None
    last_seen: datetime | None


def summarise(version: Version, scope: Scope | None) -> Summary:
    """The summary of a version; scope: the rows that the caller may see, None for all."""
    rows = slice(None) if scope is None else scope.positions
    cameras = _counts(version.column("camera"), rows)
    without = int((version.column("camera").codes[rows] < 0).sum())
    times = [time for time, _ in _counts(version.column("captured_at"), rows)]
    named: list[tuple[str | None, int]] = [*sorted(cameras), *([(None, without)] if without else [])]
    return Summary(
        images=version.rows.count if scope is None else len(scope.positions),
        cameras=tuple(named),
        columns=tuple(
            Values(name, told_kind(kind), None if name in _WITHOUT_VALUES else _most_frequent(version.column(name), rows))
            for name, kind in (version.kinds if scope is None else scope.kinds).items()
            if kind != "JSON text"
        ),
        first_seen=min(times, default=None),
        last_seen=max(times, default=None),
    )


def members(version: Version, scope: Scope | None, column: str, value: str) -> np.ndarray:
    """Positions of the rows with a value in a column, at most `MOST_MEMBERS`; values are compared as by `as_name`."""
    if column not in version.kinds:
        return np.zeros(0, np.int64)
    values = version.column(column)
    codes = [code for code, each in enumerate(values.values) if as_name(each) == as_name(value)]
    found = np.flatnonzero(np.isin(values.codes, codes))
    return (found if scope is None else np.intersect1d(found, scope.positions))[:MOST_MEMBERS]


def _counts(column: EncodedColumn, rows: slice | np.ndarray) -> list[tuple[Any, int]]:
    """The values of those rows with their counts."""
    codes = column.codes[rows]
    counts = np.bincount(codes[codes >= 0], minlength=len(column.values))
    return [(column.values[code], int(counts[code])) for code in np.flatnonzero(counts).tolist()]


def _most_frequent(column: EncodedColumn, rows: slice | np.ndarray) -> tuple[Any, ...]:
    counted = sorted(_counts(column, rows), key=lambda pair: (-pair[1], str(pair[0])))
    return tuple(value for value, _ in counted[:MOST_VALUES])
