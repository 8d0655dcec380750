"""From the columns of a metadata line to the columns of the gallery table.

`identity`, `camera` and `captured_at` have columns of their own. Every further simple value (text, number, truth) is kept
twice: in the JSON text `attributes`, and in a column of its own that filters can name. A nested `attributes` object is read one
level deep, other lists and objects live in the JSON only.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from tbps.preprocess.metadata import JSON
from tbps.preprocess.names import composed, label

Kind = Literal["text", "number", "truth"]
Extra = str | float | bool | None

MAX_COLUMNS = 128
RESERVED = frozenset(
    {
        "id",
        "embedding",
        "thumbnail",
        "source",
        "root",
        "identity",
        "camera",
        "captured_at",
        "attributes",
        "content_hash",
        "model",
    }
)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_OWN = ("identity", "camera", "captured_at")


@dataclass(frozen=True, slots=True)
class RowMetadata:
    """What one image's metadata line becomes; `captured_at` is UTC without zone, `attributes` JSON text with sorted keys."""

    identity: str | None
    camera: str | None
    captured_at: datetime | None
    attributes: str
    extras: Mapping[str, Extra]


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """The kind of every filter column, and remarks for the user on what could not become one."""

    kinds: Mapping[str, Kind]
    notes: tuple[str, ...]


def plan_columns(rows: Iterable[Mapping[str, Any]], existing: Mapping[str, Kind]) -> ColumnPlan:
    """Decides each filter column's kind over all rows at once, so that the order of rows does not matter; existing ones stay.

    All truths make a truth column, all numbers a number column, anything else text.
    """
    seen: dict[str, set[Kind]] = {}
    refused: Counter[str] = Counter()
    unread, unfit = 0, Counter[str]()
    for row in rows:
        unread += row.get("captured_at") is not None and parse_time(row["captured_at"]) is None
        for name, value in _further(row).items():
            kind = _kind(value)
            column = _column(name)
            if kind is None:
                continue
            if not _NAME.fullmatch(column) or column in RESERVED:
                refused[name] += 1
            elif column in existing:
                unfit[column] += _fit(value, existing[column]) is None
            else:
                seen.setdefault(column, set()).add(kind)
    kinds: dict[str, Kind] = {name: kinds.copy().pop() if len(kinds) == 1 else "text" for name, kinds in sorted(seen.items())}
    for name in list(kinds)[max(0, MAX_COLUMNS - len(existing)) :]:
        del kinds[name]
        refused[name] += 1
    notes = [f"column {name!r} is kept in attributes but cannot be filtered on" for name in sorted(refused)]
    notes += [
        f"column {name!r} is a {existing[name]}; {count} values are not and are kept in attributes only"
        for name, count in sorted(unfit.items())
        if count
    ]
    if unread:
        notes.append(f"captured_at: {unread} values are no ISO 8601 time such as 2024-05-01T08:30:00; kept in attributes only")
    return ColumnPlan({**existing, **kinds}, tuple(notes))


def row_metadata(columns: Mapping[str, Any], kinds: Mapping[str, Kind]) -> RowMetadata:
    """One metadata line under a plan's kinds."""
    further = _further(columns)
    captured = parse_time(columns.get("captured_at"))
    if captured is None and columns.get("captured_at") is not None:
        further["captured_at"] = columns["captured_at"]
    extras: dict[str, Extra] = {}
    for name, value in further.items():
        column = _column(name)
        if column in kinds and _kind(value) is not None:
            extras.setdefault(column, _fit(value, kinds[column]))
    text = json.dumps(further, sort_keys=True, ensure_ascii=False, default=str)
    identity, camera = (_as_label(columns.get(name)) for name in ("identity", "camera"))
    return RowMetadata(identity, camera, captured, _without_surrogates(composed(text)), extras)


def parse_time(value: Any) -> datetime | None:
    """ISO 8601 text or a datetime, to UTC without zone; a time without zone is taken as it is. None for anything else."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:  # year 1 or 9999, pushed over the edge by its zone
        return None


def _column(name: str) -> str:
    """The column that filters name: "upper.colour" becomes upper_colour, since a dot means a nested field in SQL."""
    return name.lower().replace(".", "_")


def _further(columns: Mapping[str, Any]) -> dict[str, JSON]:
    nested = columns.get("attributes")
    inner = dict(nested) if isinstance(nested, Mapping) else {}
    outer = {n: v for n, v in columns.items() if n not in _OWN and not (n == "attributes" and isinstance(nested, Mapping))}
    return {name: value for name, value in {**inner, **outer}.items() if value is not None}


def _kind(value: Any) -> Kind | None:
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


def _fit(value: Any, kind: Kind) -> Extra:
    if kind == "text":
        return _as_text(value)
    if kind == "truth":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return number if math.isfinite(number := float(value)) else None
    except OverflowError:
        return None


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    return _without_surrogates(composed(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)))


def _as_label(value: Any) -> str | None:
    """A camera's or person's name."""
    text = _as_text(value)
    return None if text is None else label(text)


def _without_surrogates(text: str) -> str:
    """Lone surrogates can be written in JSON but not stored as UTF-8."""
    return text.encode("utf-8", "replace").decode()
