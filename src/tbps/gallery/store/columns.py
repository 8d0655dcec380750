"""Converts metadata lines to the columns of a gallery's table.

Every table has the columns `identity`, `camera` and `captured_at`. Every other simple value (text, number, boolean) is stored
twice: in the JSON text `attributes`, and in a column that filters can name. The values of a nested `attributes` object are treated
the same way; other lists and objects are stored in the JSON only.

Numbers keep every digit. A column of whole numbers within 64 bits is stored as integers. If it also has fractions, it is stored as
doubles where that loses nothing, else as text. NaN and infinite numbers are left out and counted.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tbps.gallery.store.numbers import as_double, as_integer, canonical_name, is_finite, number_name
from tbps.gallery.store.schema import RESERVED, Kind, told_kind
from tbps.preprocess.metadata import JSON, parse_time
from tbps.preprocess.names import composed

THUMBNAIL = (224, 256)

Extra = str | float | int | bool | None

MAX_COLUMNS = 128
MOST_BITS = 4096  # size of the largest whole number that is stored; Python refuses to print more than 4,300 digits
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_OWN = ("identity", "camera", "captured_at")


@dataclass(frozen=True, slots=True)
class RowMetadata:
    """One image's metadata as stored. captured_at: UTC without zone; attributes: JSON with sorted keys; extras: other columns."""

    identity: str | None
    camera: str | None
    captured_at: datetime | None
    attributes: str
    extras: Mapping[str, Extra]


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """The kind of every filter column, and notes for the user about values that cannot be filtered on."""

    kinds: Mapping[str, Kind]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Seen:
    """Statistics of the values of a column, from which its kind follows."""

    kinds: set[Kind] = field(default_factory=set)
    beyond: int = 0  # whole numbers of more than 64 bits
    inexact: int = 0  # whole numbers that no double equals

    def take(self, value: Any, kind: Kind) -> None:
        self.kinds.add(kind)
        if kind == "integer":
            self.beyond += as_integer(value) is None
            self.inexact += as_double(value) is None

    def kind(self) -> Kind:
        if self.kinds == {"integer"}:
            return "text" if self.beyond else "integer"
        if self.kinds <= {"integer", "number"}:
            return "text" if self.inexact else "number"
        return next(iter(self.kinds)) if len(self.kinds) == 1 else "text"

    def note(self, name: str) -> str | None:
        """A note for the user if numbers are kept as text."""
        if self.kind() != "text" or not self.kinds <= {"integer", "number"}:
            return None
        why = (
            f"{self.beyond} of its whole numbers exceed 64 bits"
            if self.kinds == {"integer"}
            else (f"it has fractions, and {self.inexact} whole numbers whose digits a double cannot hold")
        )
        return f"column {name!r} is stored as text so that no digit is lost: {why}"


def plan_columns(
    rows: Iterable[Mapping[str, Any]], existing: Mapping[str, Kind], doubles_hold: Callable[[str], bool] = lambda name: False
) -> ColumnPlan:
    """Decides the kind of each new filter column from all rows, independent of their order; existing columns keep their kind.

    Booleans make a "truth" column, numbers a column of integers or doubles (see the module), anything else text.
    doubles_hold: whether doubles can hold all values of an existing integer column exactly. If so, and if rows have fractions for
    it, the column is converted to doubles.
    """
    met = _Met(existing)
    for row in rows:
        met.take(row)
    stored = met.stored(doubles_hold)
    kinds: dict[str, Kind] = {name: found.kind() for name, found in sorted(met.fresh.items())}
    for name in list(kinds)[max(0, MAX_COLUMNS - len(existing)) :]:
        del kinds[name]
        met.refused.add(name)
    notes = [f"column {name!r} is kept in attributes but cannot be filtered on" for name in sorted(met.refused)]
    notes += [unfit_note(name, stored[name], count) for name, count in sorted(met.unfit.items()) if count]
    notes += [note for name in kinds if (note := met.fresh[name].note(name)) is not None]
    told = f"values are NaN, infinite or of more than {MOST_BITS:,} bits and were left out"
    notes += [f"column {name!r}: {count} {told}" for name, count in sorted(met.endless.items())]
    if met.unread:
        notes.append(
            f"captured_at: {met.unread} values are not ISO 8601 times such as 2024-05-01T08:30:00; kept in attributes only"
        )
    return ColumnPlan({**stored, **kinds}, tuple(notes))


@dataclass(slots=True)
class _Met:
    """Statistics of metadata rows, by column.

    fresh: values of new columns; numbers: new numbers for existing integer columns; unfit: number of values that an existing column
    cannot hold; lost: number of values that it could not hold as doubles either; endless: number of values that are not finite or
    too large; refused: columns that cannot be filtered on; unread: number of times that cannot be parsed.
    """

    existing: Mapping[str, Kind]
    fresh: dict[str, _Seen] = field(default_factory=dict)
    numbers: dict[str, _Seen] = field(default_factory=dict)
    unfit: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    endless: Counter[str] = field(default_factory=Counter)
    refused: set[str] = field(default_factory=set)
    unread: int = 0

    def take(self, row: Mapping[str, Any]) -> None:
        self.unread += row.get("captured_at") is not None and parse_time(row["captured_at"]) is None
        self.endless.update(name for name, value in row.items() if not _finite(value))
        for name, value in _further(row).items():
            column = column_name(name)
            if (kind := _kind(value)) is None:
                continue
            if not _NAME.fullmatch(column) or column in RESERVED:
                self.refused.add(name)
            elif column not in self.existing:
                self.fresh.setdefault(column, _Seen()).take(value, kind)
            else:
                self.unfit[column] += fitted(value, self.existing[column]) is None
                self.lost[column] += fitted(value, "number") is None
                if self.existing[column] == "integer" and kind in ("integer", "number"):
                    self.numbers.setdefault(column, _Seen()).take(value, kind)

    def stored(self, doubles_hold: Callable[[str], bool]) -> dict[str, Kind]:
        """The existing columns; integer columns become doubles if rows have fractions for them and no digit is lost."""
        kinds = dict(self.existing)
        for name, found in self.numbers.items():
            if self.unfit[name] and "number" in found.kinds and not found.inexact and doubles_hold(name):
                kinds[name], self.unfit[name] = "number", self.lost[name]
        return kinds


def unfit_note(name: str, kind: Kind, count: int) -> str:
    """A note for the user about values that a column of that kind cannot hold."""
    told = "column of whole numbers of 64 bits" if kind == "integer" else told_kind(kind)
    return f"column {name!r} is a {told}; {count} other values are kept in attributes only"


def row_metadata(columns: Mapping[str, Any], kinds: Mapping[str, Kind]) -> RowMetadata:
    """Converts one metadata line. kinds: those of the `ColumnPlan`."""
    further = _further(columns)
    captured = parse_time(columns.get("captured_at"))
    if captured is None and columns.get("captured_at") is not None and _finite(columns["captured_at"]):
        further["captured_at"] = columns["captured_at"]
    extras: dict[str, Extra] = {}
    for name, value in further.items():
        column = column_name(name)
        if column in kinds and _kind(value) is not None:
            extras.setdefault(column, fitted(value, kinds[column]))
    text = json_text(further)
    identity, camera = (as_name(columns.get(name)) for name in ("identity", "camera"))
    return RowMetadata(identity, camera, captured, _without_surrogates(composed(text)), extras)


def as_name(value: Any) -> str | None:
    """Converts an identity or camera to its stored text: 7, 7.0 and "7.0" become "7"; see `canonical_name`.

    Booleans and lists become JSON text; None and numbers that are not finite become None.
    """
    if not _finite(value):
        return None
    text = _as_text(value)
    return None if text is None else canonical_name(text)


def column_name(name: str) -> str:
    """The column of a metadata name: "upper.colour" becomes upper_colour, since a dot means a nested field in SQL."""
    return name.lower().replace(".", "_")


def fitted(value: Any, kind: Kind) -> Extra:
    """Converts a simple value for a column of that kind; None if the column cannot hold it without loss."""
    if kind == "text":
        return _as_text(value)
    if kind == "truth" or isinstance(value, bool):
        return value if kind == "truth" and isinstance(value, bool) else None
    if not isinstance(value, int | float):
        return None
    return as_integer(value) if kind == "integer" else as_double(value)


def _further(columns: Mapping[str, Any]) -> dict[str, JSON]:
    nested = columns.get("attributes")
    inner = dict(nested) if isinstance(nested, Mapping) else {}
    outer = {n: v for n, v in columns.items() if n not in _OWN and not (n == "attributes" and isinstance(nested, Mapping))}
    return {name: value for name, value in {**inner, **outer}.items() if value is not None and _finite(value)}


def _kind(value: Any) -> Kind | None:
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "text" if isinstance(value, str) else None


def _finite(value: Any) -> bool:
    """Whether a value can be written as JSON and compared; True for everything but numbers."""
    if isinstance(value, int):
        return value.bit_length() <= MOST_BITS
    return not isinstance(value, float) or is_finite(value)


def json_text(value: Any, sort_keys: bool = True) -> str:
    """A value as JSON text; numbers that are not finite become null, at any depth."""
    try:
        return json.dumps(value, sort_keys=sort_keys, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        plain = json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)
        return json.dumps(plain, sort_keys=sort_keys, ensure_ascii=False)


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number_name(value)
    text = value if isinstance(value, str) else json_text(value, sort_keys=False)
    return _without_surrogates(composed(text))


def _without_surrogates(text: str) -> str:
    """Replaces lone surrogates, which JSON can hold but UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()
