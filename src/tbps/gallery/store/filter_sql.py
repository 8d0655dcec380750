"""Compiles filter conditions to SQL expressions of LanceDB; no other module writes SQL of filters.

Column names are those of the table, and all literals are quoted here, so no text from users becomes SQL. Negations are moved down
to the comparisons; neither a comparison with null nor its negation is satisfied. A number that a column cannot hold exactly is
replaced by the nearest one that it can hold. Chains of `and` and `or` become balanced trees with the deeper operand first: LanceDB
parses and plans recursively, and this way the depth only grows with the logarithm of the number of conditions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from tbps.errors import QueryError
from tbps.gallery.store.filters import (
    Always,
    Among,
    Compare,
    Condition,
    Either,
    Every,
    Holds,
    Is,
    Like,
    Literal_,
    MisfitError,
    Not,
    Sign,
    UnknownColumnError,
    Written,
    listed,
    sentences,
    shortened,
    unknown_column,
)
from tbps.gallery.store.numbers import LEAST_INTEGER, MOST_INTEGER, Number, number_name, parse_number, spellings
from tbps.gallery.store.schema import told_kind
from tbps.preprocess import names
from tbps.preprocess.metadata import parse_time

VALUES_AT_ONCE = 1000  # longest list of one `in` expression; a longer list is split into several

_OPPOSITE: Mapping[Sign, Sign] = {"=": "<>", "<>": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_NAMES = ("identity", "camera")  # may have been given as numbers
_NONE = "false"


@dataclass(frozen=True, slots=True)
class _Sql:
    """An SQL expression in brackets. weight: its number of comparisons; depth: its nesting; a right operand counts two levels."""

    text: str
    weight: int = 1
    depth: int = 1


def sql_of(condition: Condition, kinds: Mapping[str, str]) -> str:
    """Compiles a condition for a table with the columns `kinds`. Raises QueryError on unknown columns and unfit values."""
    try:
        return _Compiler(kinds).of(condition, wanted=True).text
    except UnknownColumnError as error:
        known = listed({name: kind for name, kind in kinds.items() if kind != "JSON text"})
        raise QueryError(sentences(str(error), f"Columns: {known}")[:-1]) from error
    except MisfitError as error:
        raise QueryError(str(error)) from error


def ids_sql(ids: Sequence[str]) -> str:
    """The SQL expression for rows with one of some ids."""
    return _joined("or", [_Sql(part) for part in _in("id", [quoted(id) for id in ids])] or [_Sql(_NONE)]).text


def quoted(text: str) -> str:
    """An SQL text literal."""
    return "'" + text.replace("'", "''") + "'"


class _Compiler:
    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = kinds

    def of(self, condition: Condition, wanted: bool) -> _Sql:
        """Compiles a condition, or its negation if `wanted` is false."""
        match condition:
            case Every(conditions=parts) | Either(conditions=parts):
                word = "and" if isinstance(condition, Every) == wanted else "or"
                found = _joined(word, [self.of(part, wanted) for part in parts])
            case Not(condition=inner):
                found = self.of(inner, not wanted)
            case Written(condition=inner, text=text):
                found = self._written(inner, text, wanted)
            case Always(value=value):
                found = _Sql("true" if value == wanted else _NONE)
            case Holds():
                found = self._holds(condition, wanted)
            case Is():
                found = self._is(condition, wanted)
            case Like():
                found = self._like(condition, wanted)
            case Compare(sign=sign):
                found = self._compare(condition, sign if wanted else _OPPOSITE[sign])
            case Among():
                found = self._among(condition, wanted)
        return found

    def _written(self, condition: Condition, text: str, wanted: bool) -> _Sql:
        try:
            return self.of(condition, wanted)
        except MisfitError as error:
            known = listed(self._kinds)
            reason = sentences(f"filter {shortened(text)}: {error}", f"Columns: {known}")
            raise QueryError(f"{reason} Example: camera = 'lobby'") from error

    def _kind(self, column: str) -> str:
        kind = self._kinds.get(column)
        if kind is None:
            raise UnknownColumnError(unknown_column(column, self._kinds))
        return kind

    def _like(self, condition: Like, wanted: bool) -> _Sql:
        column, pattern = condition.column, condition.pattern
        if (kind := self._kind(column)) not in ("text", "JSON text"):
            raise MisfitError(f"like {shortened(pattern)} needs a text, but column {column!r} is a {told_kind(kind)}")
        parts = [_Sql(f"(`{column}` {'' if wanted else 'not '}like {quoted(each)})") for each in names.spellings(pattern)]
        return _joined("or" if wanted else "and", parts)

    def _holds(self, condition: Holds, wanted: bool) -> _Sql:
        if (kind := self._kind(condition.column)) != "truth":
            raise MisfitError(f"column {condition.column!r} is a {told_kind(kind)}, not a boolean; compare it with a value")
        return _Sql(f"(`{condition.column}` = {_truth(wanted)})")

    def _is(self, condition: Is, wanted: bool) -> _Sql:
        kind, name = self._kind(condition.column), f"`{condition.column}`"
        if condition.value is None:
            return _Sql(f"({name} is {'' if wanted else 'not '}null)")
        if kind != "truth":
            word = _truth(condition.value)
            raise MisfitError(f"column {condition.column!r} is a {told_kind(kind)} and never {word}; compare it with a value")
        if wanted:
            return _Sql(f"({name} = {_truth(condition.value)})")
        return _Sql(f"({name} is null or {name} = {_truth(not condition.value)})", 2)

    def _compare(self, condition: Compare, sign: Sign) -> _Sql:
        column, kind = condition.column, self._kind(condition.column)
        value = _fitting(column, kind, condition.value, typed=True)
        if kind == "truth" and sign not in ("=", "<>"):
            raise MisfitError(f"column {column!r} is a truth (true or false), which has no order; write = or <>")
        spelled = column in _NAMES or (isinstance(value, str) and not value.isascii())
        if spelled and sign in ("=", "<>"):
            return self._among(Among(column, (condition.value,)), sign == "=")
        return _Sql(_comparison(column, kind, sign, value))

    def _among(self, condition: Among, wanted: bool) -> _Sql:
        column, kind = condition.column, self._kind(condition.column)
        if kind == "JSON text" and not condition.typed:
            raise UnknownColumnError(unknown_column(column, {}))
        fitting = [_fitting(column, kind, value, condition.typed) for value in condition.values]
        literals = dict.fromkeys(text for value in fitting for text in _equal_literals(column, kind, value))
        if not wanted:
            return _joined("and", [_Sql(part) for part in _in(column, list(literals), "not in")] or [_Sql(_present(column))])
        return _joined("or", [_Sql(part) for part in _in(column, list(literals))] or [_Sql(_NONE)])


def _fitting(column: str, kind: str, value: Literal_, typed: bool) -> Literal_ | tuple[str, ...]:
    """Converts a value for a column of that kind; a tuple of texts if a text column may hold several spellings of a number."""
    found: Literal_ | tuple[str, ...] | None = None
    is_number = isinstance(value, int | float | Fraction) and not isinstance(value, bool)
    match kind:
        case "time":
            found = value if isinstance(value, datetime) else parse_time(value) if isinstance(value, str) else None
            if found is None and typed:
                raise MisfitError(f"captured_at is compared with {shortened(value)}; write a time as '2024-05-01T08:30:00'")
        case "truth":
            words = {"true": True, "false": False}
            found = value if isinstance(value, bool) else words.get(str(value).lower()) if not typed else None
        case "number" | "integer":
            found = value if is_number else parse_number(value) if isinstance(value, str) and not typed else None
        case _ if isinstance(value, str):
            found = value
        case _ if not typed and not isinstance(value, datetime | Fraction):
            found = _truth(value) if isinstance(value, bool) else spellings(number_name(value))
    if found is not None:
        return found
    if not typed:
        raise MisfitError(f"column {column!r} is a {told_kind(kind)}; {shortened(value)} is not a valid {told_kind(kind)}")
    told = _truth(value) if isinstance(value, bool) else shortened(value) if isinstance(value, str) else str(value)
    raise MisfitError(
        f"{told} is compared with a column of another kind, {column!r} is a {told_kind(kind)}; "
        "text is written in single quotes, numbers are not"
    )


def _equal_literals(column: str, kind: str, value: Literal_ | tuple[str, ...]) -> list[str]:
    """The SQL literals of all column values that count as equal to a value; empty if the column cannot hold any."""
    if isinstance(value, tuple):
        return [quoted(text) for text in value]
    if isinstance(value, str):
        return [quoted(text) for text in (spellings(value) if column in _NAMES else names.spellings(value))]
    if isinstance(value, bool):
        return [_truth(value)]
    if isinstance(value, datetime):
        return [_moment(value)]
    exact = _whole(value) if kind == "integer" else _double(value)
    return [] if exact is None else [exact]


def _comparison(column: str, kind: str, sign: Sign, value: Literal_ | tuple[str, ...]) -> str:
    if kind in ("number", "integer") and isinstance(value, int | float | Fraction):
        return _of_integers(column, sign, value) if kind == "integer" else _of_doubles(column, sign, value)
    (literal,) = [quoted(names.composed(value))] if isinstance(value, str) else _equal_literals(column, kind, value)
    return f"(`{column}` {sign} {literal})"


def _of_integers(column: str, sign: Sign, value: Number) -> str:
    """Compares an integer column with any number, using an integer literal."""
    exact = Fraction(value)
    if sign in ("=", "<>"):
        literal = _whole(value)
        if literal is None:
            return _NONE if sign == "=" else _present(column)
        return f"(`{column}` {sign} {literal})"
    if sign in ("<", "<="):
        most = math.ceil(exact) - 1 if sign == "<" else math.floor(exact)
        if most >= MOST_INTEGER or most < LEAST_INTEGER:
            return _present(column) if most >= MOST_INTEGER else _NONE
        return f"(`{column}` <= {_integer(most)})"
    least = math.floor(exact) + 1 if sign == ">" else math.ceil(exact)
    if least <= LEAST_INTEGER or least > MOST_INTEGER:
        return _present(column) if least <= LEAST_INTEGER else _NONE
    return f"(`{column}` >= {_integer(least)})"


def _of_doubles(column: str, sign: Sign, value: Number) -> str:
    """Compares a column of doubles with a number, which may lie between two doubles or outside their range."""
    below, above = _doubles_around(Fraction(value))
    if below == above:
        return f"(`{column}` {sign} {below!r})"
    if sign in ("=", "<>"):
        return _NONE if sign == "=" else _present(column)
    if sign in ("<", "<="):
        return _NONE if below == -math.inf else f"(`{column}` <= {below!r})"
    return _NONE if above == math.inf else f"(`{column}` >= {above!r})"


def _doubles_around(exact: Fraction) -> tuple[float, float]:
    """The largest double at most equal to a number and the smallest at least equal; the same if a double equals it."""
    try:
        nearest = float(exact)
    except OverflowError:
        nearest = math.inf if exact > 0 else -math.inf
    if nearest == math.inf:
        return math.nextafter(math.inf, 0), nearest
    if nearest == -math.inf:
        return nearest, math.nextafter(-math.inf, 0)
    if Fraction(nearest) == exact:
        return nearest, nearest
    if Fraction(nearest) < exact:
        return nearest, math.nextafter(nearest, math.inf)
    return math.nextafter(nearest, -math.inf), nearest


def _whole(value: Number) -> str | None:
    exact = Fraction(value)
    if exact.denominator != 1 or not LEAST_INTEGER <= exact.numerator <= MOST_INTEGER:
        return None
    return _integer(exact.numerator)


def _integer(value: int) -> str:
    """An integer literal; the least 64-bit integer is written as a difference, since its digits without the sign exceed 64 bits."""
    return str(value) if value > LEAST_INTEGER else f"({LEAST_INTEGER + 1} - 1)"


def _double(value: Number) -> str | None:
    below, above = _doubles_around(Fraction(value))
    return repr(below) if below == above else None


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _moment(value: datetime) -> str:
    return f"timestamp '{value.isoformat()}'"


def _present(column: str) -> str:
    return f"(`{column}` is not null)"


def _in(column: str, literals: Sequence[str], word: str = "in") -> list[str]:
    parts = [literals[at : at + VALUES_AT_ONCE] for at in range(0, len(literals), VALUES_AT_ONCE)]
    return [f"(`{column}` {word} ({', '.join(part)}))" for part in parts]


def _joined(word: str, parts: Sequence[_Sql]) -> _Sql:
    """Joins expressions as a balanced binary tree, by number of comparisons."""
    if len(parts) == 1:
        return parts[0]
    total, before, at = sum(part.weight for part in parts), 0, 0
    while at < len(parts) - 1 and (at == 0 or 2 * (before + parts[at].weight) <= total):
        before, at = before + parts[at].weight, at + 1
    left, right = _joined(word, parts[:at]), _joined(word, parts[at:])
    if left.depth < right.depth:
        left, right = right, left
    depth = max(left.depth + 1, right.depth + 2)
    return _Sql(f"({left.text} {word} {right.text})", left.weight + right.weight, depth)
