"""The filters of a search as values: a small language of conditions, typed against a gallery's columns.

Conditions are made from text (`filter_text`) or from the parts of a query (`equal`, `between`), and become SQL in `filter_sql`
alone. No text of a user reaches the database except as a quoted literal, and no condition can fail at a row.

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
    """A column beside a value."""

    column: str
    sign: Sign
    value: Literal_


@dataclass(frozen=True, slots=True)
class Among:
    """A column holds one of some values. typed: False where a number or truth may be given as text, as on a command line."""

    column: str
    values: tuple[Literal_, ...]
    typed: bool = True


@dataclass(frozen=True, slots=True)
class Like:
    """A text column fits a pattern: % stands for any characters, _ for one, and a backslash makes %, _ and \\ literal."""

    column: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Is:
    """A column is null (value None), or a truth column is true or false; itself never unknown."""

    column: str
    value: bool | None


@dataclass(frozen=True, slots=True)
class Holds:
    """A truth column by itself."""

    column: str


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite, which is unknown where the condition is."""

    condition: "Condition"


@dataclass(frozen=True, slots=True)
class Every:
    """All of some conditions."""

    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one of some conditions."""

    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A condition with the text that a user wrote for it, which errors quote."""

    condition: "Condition"
    text: str


Condition = Always | Compare | Among | Like | Is | Holds | Not | Every | Either | Written


class MisfitError(Exception):
    """Why a condition does not fit the columns; becomes a QueryError that quotes the filter where there is one."""


class UnknownColumnError(MisfitError):
    """A condition names a column that is not there."""


def equal(column: str, values: Sequence[Value]) -> Condition:
    """A column holds one of the values; None stands for no value. A number or truth may be given as text.

    Raises QueryError on a value that no column can hold: a number that is not finite, a text that is no Unicode.
    """
    for value in values:
        check_value(column, value)
    name = column_name(column)
    found: Condition = Among(name, tuple(value for value in values if value is not None), typed=False)
    return Either((found, Is(name, None))) if None in values else found


def between(since: str | None, until: str | None) -> list[Condition]:
    """Conditions for times from `since` on and before `until`. Raises QueryError on what is no ISO 8601 time."""
    sides: tuple[tuple[Sign, str | None], ...] = ((">=", since), ("<", until))
    return [Compare("captured_at", sign, _time(text)) for sign, text in sides if text is not None]


def all_of(conditions: Sequence[Condition]) -> Condition | None:
    """All of some conditions as one, None for none."""
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
    """What is wrong with a name that no column has, and the likely one."""
    likely = likely_name(name, kinds)
    return f"unknown column {shortened(name)} {use}".rstrip() + (f"; did you mean {likely!r}?" if likely else "")


def sentences(*parts: str) -> str:
    """Sentences one after another; a part that ends with a question mark gets no full stop."""
    return " ".join(part if part.endswith("?") else f"{part}." for part in parts)


def likely_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that somebody most likely meant."""
    by_lower = {each.lower(): each for each in sorted(known, reverse=True)}
    found = difflib.get_close_matches(name.lower()[:200], by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def no_camera(name: str, known: Iterable[str]) -> str:
    """What is wrong with a camera of which there is no image, and the likely one."""
    cameras = sorted(known)
    likely = likely_name(name, cameras)
    if likely is not None:
        return f"no camera {shortened(name)}; did you mean {likely!r}?"
    return f"no camera {shortened(name)}" + (f"; there are: {named(cameras)}" if cameras else "; no image names a camera")


def listed(kinds: Mapping[str, str]) -> str:
    """Columns with their kinds, for errors."""
    return ", ".join(f"{name} ({told_kind(kind)})" for name, kind in kinds.items())


def named(names: Iterable[str]) -> str:
    """Some names for a message, the first few only."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _MOST_NAMED:,} more" if len(ordered) > _MOST_NAMED else ""
    return ", ".join(ordered[:_MOST_NAMED]) + more


def shortened(value: object) -> str:
    """A value that somebody gave, in quotes and not longer than a line of a message."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def check_value(column: str, value: Value) -> None:
    """Raises QueryError on a value that no column can hold."""
    if isinstance(value, int | float) and not is_finite(value):
        raise QueryError(f"column {shortened(column)} is compared with {value}, which is no finite number")
    if isinstance(value, str):
        check_text(f"the value for column {shortened(column)}", value)


def check_text(what: str, text: str) -> None:
    """Raises QueryError on lone surrogates, which are no Unicode text and are stored nowhere."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QueryError(f"{what} holds {text[error.start]!r}, half of a surrogate pair, which is no character") from error


def _time(text: str) -> datetime:
    if (moment := parse_time(text)) is None:
        raise QueryError(f"column 'captured_at' is a time; {shortened(text)} is none, write 2024-05-01 or 2024-05-01T08:30:00")
    return moment
