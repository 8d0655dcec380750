"""The one reader of JSON that strangers send: bodies of requests and JSON in fields of forms.

Python's own reader takes more than JSON is: NaN and Infinity, numbers that become infinite (1e999), keys that stand twice, halves
of surrogate pairs. Each of them breaks something later, such as the audit log or the database, so all of them are refused here.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from tbps.errors import RequestError
from tbps.preprocess.metadata import json_number

MOST_DEPTH = 32
MOST_DIGITS = 100  # of an integer

# Matches at every quote, also where the text ends early, so that no quote is looked at twice; nothing in it is tried in two ways.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)

JSON = None | bool | int | float | str | list[Any] | dict[str, Any]


def parse(content: bytes, what: str, most_values: int) -> JSON:
    """The value of a JSON text in UTF-8. `what` names it in messages; most_values: values that it may hold, nested ones included.

    Raises RequestError (422) that says what is wrong, in one line however long the text is.
    """
    if _fewest_values(content) > most_values:
        raise _refused(what, f"holds more than {most_values:,} values; send less at a time")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(what, f"is not UTF-8 text (byte {error.start + 1:,})") from error
    try:
        value: JSON = json.loads(text, parse_constant=_constant, parse_float=_number, parse_int=_integer, object_pairs_hook=_object)
    except _UnfitError as error:
        raise _refused(what, str(error)) from error
    except RecursionError as error:
        raise _refused(what, _too_deep()) from error
    except json.JSONDecodeError as error:
        raise _refused(what, f"is not JSON ({error.msg} at character {error.pos + 1:,})") from error
    _check(value, what, most_values)
    return value


def unfit_text(text: str) -> str | None:
    """What keeps a text from being stored and compared like any other, None where nothing does."""
    if "\0" in text:
        return "holds a NUL character; leave it out"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is no character; leave it out"
    return None


def shown(text: str, most: int = 60) -> str:
    """A text as it can stand in a message: on one line, and shortened."""
    return ascii(text) if len(text) <= most else f"{text[:most]!a}..."


def _fewest_values(content: bytes) -> int:
    """As many values as a text has at least, if it is JSON. None is made: a hundred thousand objects stop all threads for long."""
    outside = _STRING.sub(b"", content)
    return max(outside.count(b"[") + outside.count(b"{"), outside.count(b",") + outside.count(b":"))


class _UnfitError(ValueError):
    """A value that JSON's readers disagree on; the message goes on after what is read."""


def _check(value: JSON, what: str, most_values: int) -> None:
    """Depth, number and texts of what was read."""
    for count, (depth, each) in enumerate(_values(value), start=1):
        if depth > MOST_DEPTH:
            raise _refused(what, _too_deep())
        if count > most_values:
            raise _refused(what, f"holds more than {most_values:,} values; send less at a time")
        if isinstance(each, str) and (problem := unfit_text(each)) is not None:
            raise _refused(what, f"has a text ({shown(each)}) that {problem}")


def _values(value: JSON) -> Iterator[tuple[int, JSON]]:
    """Every value and every key, with how deep it lies; without recursion, since the depth is the sender's."""
    waiting = [(1, value)]
    while waiting:
        depth, each = waiting.pop()
        yield depth, each
        if isinstance(each, list):
            waiting.extend((depth + 1, inner) for inner in each)
        elif isinstance(each, dict):
            for key, inner in each.items():
                yield depth, key
                waiting.append((depth + 1, inner))


def _constant(name: str) -> NoReturn:
    raise _UnfitError(f"holds {name}, which is no number of JSON; leave it out")


def _number(text: str) -> int | float:
    try:
        return json_number(text)
    except ValueError as error:
        raise _UnfitError(f"holds the number {shown(text)}, which is too large") from error


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise _UnfitError(f"holds an integer of {len(text):,} digits, more than {MOST_DIGITS}; write it as text, in quotes")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen = set[str]()
        for key, _ in pairs:
            if key in seen:
                raise _UnfitError(f"has the key {shown(key)} twice in one object; keep one of them")
            seen.add(key)
    return made


def _too_deep() -> str:
    return f"is nested deeper than {MOST_DEPTH} levels"


def _refused(what: str, problem: str) -> RequestError:
    return RequestError(422, "request", f"{what} {problem}")
