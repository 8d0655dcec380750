"""The filters of a search: SQL conditions on the metadata columns, structured ones made into SQL, and errors that a person can
act on.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tbps.errors import QueryError
from tbps.search.columns import parse_time

MAX_LENGTH = 10_000

Value = bool | int | float | str | None

_HIDDEN = re.compile(r"\b(root|embedding|thumbnail|content_hash|model)\b", re.IGNORECASE)
_LITERAL = re.compile(r"('(?:[^']|'')*')")
_BEFORE_TIME = re.compile(r"\bcaptured_at\s*(?:=|<>|!=|<=|>=|<|>|(?:not\s+)?between|(?:not\s+)?in\s*\()\s*$", re.IGNORECASE)
_AFTER_TIME = re.compile(r"\s*(?:and|,)\s*", re.IGNORECASE)
_RUST_PLACE = re.compile(r",?\s*/\S+\.rs:\d+(?::\d+)?")


@dataclass(frozen=True, slots=True)
class Filter:
    """clause: one bracketed SQL expression; text: as the user wrote it, for messages."""

    clause: str
    text: str


def written(where: str) -> Filter:
    """The filter of an SQL condition. Raises as `condition`, and on a column of the table that is not for filters.

    What can be asked about can be found out by asking often enough, such as the folders of the machine in `root`.
    """
    if found := _HIDDEN.search("".join(_LITERAL.split(where)[::2])):
        raise QueryError(f"filter {where[:200]!r}: unknown column {found[0]!r}; a text is written in single quotes")
    return Filter(condition(where), where)


def equal(column: str, values: Sequence[Value], kinds: Mapping[str, str]) -> str:
    """The SQL expression that is true where a column holds one of the values; None stands for no value.

    A number or truth may be given as text, as on a command line. Raises QueryError on an unknown column or an unfitting value.
    """
    kind = kinds.get(column)
    if kind is None or kind == "JSON text":
        known = ", ".join(f"{name} ({kind})" for name, kind in kinds.items() if kind != "JSON text")
        raise QueryError(f"unknown column {column!r}. Columns: {known}")
    literals = [_literal(value, kind, column) for value in values if value is not None]
    parts = [f"`{column}` in ({', '.join(literals)})"] if literals else []
    if len(literals) < len(values):
        parts.append(f"`{column}` is null")
    return f"({' or '.join(parts) or 'false'})"


def between(since: str | None, until: str | None) -> list[str]:
    """SQL expressions for times from `since` on and before `until`. Raises QueryError on what is no ISO 8601 time."""
    sides = ((">=", since), ("<", until))
    return [f"(captured_at {sign} {_literal(text, 'time', 'captured_at')})" for sign, text in sides if text is not None]


def _literal(value: bool | int | float | str, kind: str, column: str) -> str:
    """SQL text of a value in a column of that kind."""
    fitting = _fitting(value, kind)
    if fitting is None:
        raise QueryError(f"column {column!r} is a {kind}; {value!r} is none")
    if isinstance(fitting, bool):
        return "true" if fitting else "false"
    if isinstance(fitting, datetime):
        return f"timestamp '{fitting.isoformat()}'"
    if isinstance(fitting, float):
        return repr(fitting)
    return "'" + fitting.replace("'", "''") + "'"


def _fitting(value: bool | int | float | str, kind: str) -> bool | float | str | datetime | None:
    """A value as the column's kind has it, None where it does not fit."""
    if kind == "time":
        return parse_time(value)
    if kind == "truth":
        return {"true": True, "false": False}.get(str(value).lower())
    if kind == "number" and not isinstance(value, bool):
        try:
            return number if math.isfinite(number := float(value)) else None
        except ValueError:
            return None
    if kind == "text":  # as `columns` made it: a number as JSON, lone surrogates replaced
        return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "replace").decode()
    return None


def condition(where: str) -> str:
    """A condition that stands alone as one bracketed expression, with the times compared to `captured_at` made timestamps.

    The brackets make trailing words ("; delete", "limit 3") a syntax error instead of being ignored.
    Raises QueryError for an empty or overlong text, a comment, an unopened bracket, or a time that is none.
    """
    if not where.strip():
        raise QueryError("the filter is empty; leave it out or write a condition such as camera = 'lobby'")
    if len(where) > MAX_LENGTH:
        raise QueryError(f"the filter has {len(where):,} characters, more than {MAX_LENGTH:,}; shorten it")
    parts = _LITERAL.split(where)  # code, literal, code, literal, ..., code
    _check_closed("".join(parts[::2]))
    follows = False
    for at in range(1, len(parts), 2):
        first = _BEFORE_TIME.search(parts[at - 1]) is not None
        follows = first or (follows and _AFTER_TIME.fullmatch(parts[at - 1]) is not None)
        if not follows:
            continue
        moment = parse_time(parts[at][1:-1])
        if moment is not None:
            parts[at] = f"timestamp '{moment.isoformat()}'"
        elif first:
            raise QueryError(f"captured_at is compared with {parts[at]}; write a time as '2024-05-01' or '2024-05-01T08:30:00'")
    return f"({''.join(parts)}\n)"


def _check_closed(code: str) -> None:
    """Refuses what could end the enclosing brackets early."""
    if "--" in code or "/*" in code:
        raise QueryError("the filter holds a comment (-- or /*); leave it out")
    depth = 0
    for character in code:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            raise QueryError("the filter closes a bracket that it never opened")


def about_filter(error: Exception) -> bool:
    """Whether the database refused a condition, or failed at a row with it, and not at its own files."""
    return isinstance(error, ValueError) or "applying filter expression" in str(error)


def refusal(where: str, error: Exception, columns: Mapping[str, str]) -> QueryError:
    """The database's error on `where` in one line that names the columns and how to write a condition."""
    text = _RUST_PLACE.sub("", str(error))
    known = ", ".join(f"{name} ({kind})" for name, kind in columns.items())
    if found := re.search(r"No field named (.+?)\. Valid fields", text):
        name = found.group(1).strip('"')
        reason = (
            f"unknown column {name!r}; text is written in single quotes" if f'"{name}"' in where else f"unknown column {name!r}"
        )
    elif found := re.search(r"Received literal \w+\((.*?)\) and could not convert to literal of type '(\w+)", text):
        reason = f"{found.group(1)} is compared with a column of another kind; text is written in single quotes, numbers are not"
    elif found := re.search(r"Arrow error: (.+?)(?:, /|$)", text):
        reason = f"it cannot be computed for some image ({found.group(1)})"
    elif found := re.search(r"sql parser error: (.+?)\)?$", text, re.DOTALL):
        reason = found.group(1)
    else:
        reason = text.replace("Invalid input, ", "").partition("\n")[0].rstrip(". ")
    return QueryError(f"filter {where[:200]!r}: {reason}. Columns: {known}. Example: camera = 'lobby'")
