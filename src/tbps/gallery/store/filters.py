"""Filter conditions on the columns of a gallery, as immutable values.

Conditions are parsed from text by `filter_text`, or made from the fields of a query by `equal` and `between`. Only `filter_sql`
turns them into SQL. Text from users reaches the database only as quoted literals, and evaluating a condition never fails on a row.

    camera = 'lobby' and (age >= 30 or not bag) and captured_at between '2024-05-01' and '2024-05-02'
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tbps.errors import QueryError
from tbps.gallery.store.columns import column_name
from tbps.gallery.store.numbers import Number, is_finite
from tbps.gallery.store.schema import told_kind
from tbps.preprocess.metadata import parse_time

Value = bool | int | float | str | None
Literal_ = bool | Number | str | datetime
Sign = Literal["=", "<>", "<", "<=", ">", ">="]

_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Always:
    """True or false for every row."""

    value: bool


@dataclass(frozen=True, slots=True)
class Compare:
    """Compares a column with a value."""

    column: str
    sign: Sign
    value: Literal_


@dataclass(frozen=True, slots=True)
class Among:
    """A column holds one of some values. typed: False if numbers and booleans may be given as text, as on a command line."""

    column: str
    values: tuple[Literal_, ...]
    typed: bool = True


@dataclass(frozen=True, slots=True)
class Like:
    """A text column matches a pattern: % matches any characters, _ one character; a backslash makes %, _ and \\ literal."""

    column: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Is:
    """A column is null (value None), or a boolean column is true or false; never unknown."""

    column: str
    value: bool | None


@dataclass(frozen=True, slots=True)
class Holds:
    """A boolean column is true."""

    column: str


@dataclass(frozen=True, slots=True)
class Not:
    """The negation of a condition; unknown (null) where the condition is unknown."""

    condition: "Condition"


@dataclass(frozen=True, slots=True)
class Every:
    """The conjunction of several conditions: all of them hold."""

    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """The disjunction of several conditions: at least one of them holds."""

    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A condition with the text that it was parsed from, which error messages quote."""

    condition: "Condition"
    text: str


Condition = Always | Compare | Among | Like | Is | Holds | Not | Every | Either | Written


class MisfitError(Exception):
    """A condition does not fit the columns of a gallery; becomes a QueryError that quotes the filter."""


class UnknownColumnError(MisfitError):
    """A condition names a column that does not exist."""


def equal(column: str, values: Sequence[Value]) -> Condition:
    """The condition that a column holds one of the values, where None means null. Numbers and booleans may be given as text.

    Raises QueryError on a value that no column can hold: a number that is not finite, text with lone surrogates.
    """
    for value in values:
        check_value(column, value)
    name = column_name(column)
    found: Condition = Among(name, tuple(value for value in values if value is not None), typed=False)
    return Either((found, Is(name, None))) if None in values else found


def between(since: str | None, until: str | None) -> list[Condition]:
    """The conditions that captured_at is at or after `since` and before `until`. Raises QueryError unless these are ISO 8601."""
    sides: tuple[tuple[Sign, str | None], ...] = ((">=", since), ("<", until))
    return [Compare("captured_at", sign, _time(text)) for sign, text in sides if text is not None]


def all_of(conditions: Sequence[Condition]) -> Condition | None:
    """Joins conditions with `and`; None if there are none."""
    return None if not conditions else conditions[0] if len(conditions) == 1 else Every(tuple(conditions))


def values_of(condition: Condition, column: str) -> Iterator[str]:
    """The texts that a condition compares a column with for equality."""
    match condition:
        case Compare(column=name, sign="=" | "<>", value=str(value)) if name == column:
            yield value
        case Among(column=name, values=values) if name == column:
            yield from (value for value in values if isinstance(value, str))
        case Not(condition=inner) | Written(condition=inner):
            yield from values_of(inner, column)
        case Every(conditions=parts) | Either(conditions=parts):
            for part in parts:
                yield from values_of(part, column)


def unknown_column(name: str, kinds: Mapping[str, str], use: str = "") -> str:
    """A message about an unknown column, with the column that was likely meant."""
    likely = likely_name(name, kinds)
    return f"unknown column {shortened(name)} {use}".rstrip() + (f"; did you mean {likely!r}?" if likely else "")


def sentences(*parts: str) -> str:
    """Joins sentences; a part that ends with a question mark gets no full stop."""
    return " ".join(part if part.endswith("?") else f"{part}." for part in parts)


def likely_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar to an unknown one; None if none is similar."""
    by_lower = {each.lower(): each for each in sorted(known, reverse=True)}
    found = difflib.get_close_matches(name.lower()[:200], by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def no_camera(name: str, known: Iterable[str]) -> str:
    """A message about a camera without images, with the camera that was likely meant."""
    cameras = sorted(known)
    likely = likely_name(name, cameras)
    if likely is not None:
        return f"no camera {shortened(name)}; did you mean {likely!r}?"
    return f"no camera {shortened(name)}" + (f"; there are: {named(cameras)}" if cameras else "; no image names a camera")


def listed(kinds: Mapping[str, str]) -> str:
    """Columns with their kinds, for error messages."""
    return ", ".join(f"{name} ({told_kind(kind)})" for name, kind in kinds.items())


def named(names: Iterable[str]) -> str:
    """Names for a message; only the first 20."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _MOST_NAMED:,} more" if len(ordered) > _MOST_NAMED else ""
    return ", ".join(ordered[:_MOST_NAMED]) + more


def shortened(value: object) -> str:
    """A value from a user, quoted and shortened for a message."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def check_value(column: str, value: Value) -> None:
    """Raises QueryError on a value that no column can hold."""
    if isinstance(value, int | float) and not is_finite(value):
        raise QueryError(f"column {shortened(column)} is compared with {value}, which is not a finite number")
    if isinstance(value, str):
        check_text(f"the value for column {shortened(column)}", value)


def check_text(what: str, text: str) -> None:
    """Raises QueryError on lone surrogates, which cannot be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QueryError(f"{what} holds {text[error.start]!r}, half of a surrogate pair, which is not a character") from error


def _time(text: str) -> datetime:
    if (moment := parse_time(text)) is None:
        raise QueryError(f"column 'captured_at' is a time; {shortened(text)} is not, write 2024-05-01 or 2024-05-01T08:30:00")
    return moment
