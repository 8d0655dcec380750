"""Strict parser for untrusted JSON: bodies of requests and fields of forms.

Python's parser also accepts NaN and Infinity, numbers that become infinite (1e999), duplicate keys and lone surrogates. These would
cause errors later, for example in the audit log or the database, so they are refused here.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from tbps.errors import RequestError
from tbps.preprocess.metadata import json_number

MOST_DEPTH = 32
MOST_DIGITS = 100  # of an integer

# Matches strings, including an unterminated one, without backtracking, in time linear in the length of the text.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)

JSON = None | bool | int | float | str | list[Any] | dict[str, Any]


def parse(content: bytes, what: str, most_values: int) -> JSON:
    """Parse UTF-8 JSON. what: name of the text in messages; most_values: limit on the number of values, including nested ones.

    Raises RequestError (422) with a one-line message of bounded length.
    """
    if _fewest_values(content) > most_values:
        raise _refused(what, f"contains more than {most_values:,} values; send less at a time")
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
    """Reason why a text cannot be stored in the database, or None."""
    if "\0" in text:
        return "contains a NUL character; leave it out"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "contains half of a surrogate pair, which is not a character; leave it out"
    return None


def shown(text: str, most: int = 60) -> str:
    """Format a text for a message: one line, ASCII, shortened."""
    return ascii(text) if len(text) <= most else f"{text[:most]!a}..."


def _fewest_values(content: bytes) -> int:
    """Lower bound on the number of values, from counting bytes: parsing a hundred thousand objects would block all threads."""
    outside = _STRING.sub(b"", content)
    return max(outside.count(b"[") + outside.count(b"{"), outside.count(b",") + outside.count(b":"))


class _UnfitError(ValueError):
    """A value that is refused; the message continues a sentence whose subject is the text."""


def _check(value: JSON, what: str, most_values: int) -> None:
    """Check depth, number of values and texts of a parsed value."""
    for count, (depth, each) in enumerate(_values(value), start=1):
        if depth > MOST_DEPTH:
            raise _refused(what, _too_deep())
        if count > most_values:
            raise _refused(what, f"contains more than {most_values:,} values; send less at a time")
        if isinstance(each, str) and (problem := unfit_text(each)) is not None:
            raise _refused(what, f"has a text ({shown(each)}) that {problem}")


def _values(value: JSON) -> Iterator[tuple[int, JSON]]:
    """All values and keys with their depth. Not recursive, since the sender chooses the depth."""
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
    raise _UnfitError(f"contains {name}, which is not a number in JSON; leave it out")


def _number(text: str) -> int | float:
    try:
        return json_number(text)
    except ValueError as error:
        raise _UnfitError(f"contains the number {shown(text)}, which is too large") from error


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise _UnfitError(f"contains an integer of {len(text):,} digits, more than {MOST_DIGITS}; write it as text, in quotes")
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
