"""Strict JSON: values that only Python's parser accepts are refused, valid JSON is parsed unchanged."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbps.errors import RequestError
from tbps.server.bodies.requests import Query
from tbps.server.strict_json import MOST_DEPTH, MOST_DIGITS, parse, unfit_text

_PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | _PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_PLAIN, inner, max_size=4),
    max_leaves=20,
)


@given(_VALUES, st.booleans())
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_valid_json_is_parsed_unchanged(value: Any, escaped: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=escaped).encode(), "the body", 1000) == value


REFUSED = {
    "nan": (b'{"k": NaN}', "NaN"),
    "infinity": (b'{"k": [Infinity]}', "Infinity"),
    "minus infinity": (b"-Infinity", "Infinity"),
    "too large": (b'{"k": 1e999}', "1e999"),
    "too small": (b'{"k": -1e999}', "-1e999"),
    "large with a point": (b'{"k": ' + b"9" * 400 + b".0}", "too large"),
    "half a pair": (b'{"k": "\\ud800"}', "surrogate"),
    "half a pair in a key": (b'{"\\udc00": 1}', "surrogate"),
    "half a pair among letters": (b'["abc\\ud83dabc"]', "surrogate"),
    "raw half a pair": (b'{"k": "\xed\xa0\x80"}', "UTF-8"),
    "no utf-8": (b'{"k": "\xff"}', "UTF-8"),
    "utf-16": ('{"k": 1}'.encode("utf-16"), "UTF-8"),
    "nul": (b'{"k": "a\\u0000"}', "NUL"),
    "nul in a key": (b'{"a\\u0000": 1}', "NUL"),
    "raw nul": (b'{"k": "\0"}', "not JSON"),
    "twice": (b'{"k": 1, "k": 2}', "'k' twice"),
    "twice, once escaped": (b'{"k": 1, "\\u006b": 2}', "'k' twice"),
    "twice, deep": (b'[{"a": {"b": 1, "b": 1}}]', "'b' twice"),
    "many digits": (b'{"k": ' + b"1" * 5000 + b"}", "5,000 digits"),
    "some digits": (b"1" * (MOST_DIGITS + 1), "digits"),
    "deep": (b"[" * 200 + b"]" * 200, "deeper"),
    "deeper than Python goes": (b"[" * 900_000 + b"]" * 900_000, "values"),
    "deep objects": (b'{"a":' * 50 + b"1" + b"}" * 50, "deeper"),
    "many": (b"[" + b"1," * 2000 + b"1]", "1,000 values"),
    "many keys": (json.dumps({f"k{n}": 1 for n in range(600)}).encode(), "1,000 values"),
    "empty": (b"", "not JSON"),
    "two": (b"{} {}", "not JSON"),
    "single quotes": (b"{'k': 1}", "not JSON"),
    "comment": (b'{"k": 1} // x', "not JSON"),
    "trailing comma": (b'{"k": 1,}', "not JSON"),
    "early end": (b'{"k": "', "not JSON"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refusals_are_one_short_line(name: str) -> None:
    content, says = REFUSED[name]
    with pytest.raises(RequestError) as refused:
        parse(content, "the body", 1000)
    message = str(refused.value)
    assert refused.value.status == 422 and says in message
    assert message.startswith("the body ") and "\n" not in message and len(message) < 250


def test_values_at_the_limits_are_accepted() -> None:
    assert parse(b"1" * MOST_DIGITS, "x", 1) == int("1" * MOST_DIGITS)
    assert parse(b"[" * MOST_DEPTH + b"]" * MOST_DEPTH, "x", 100)
    assert parse(b"[" + b"1," * 998 + b"1]", "x", 1000) == [1] * 999
    assert parse('\ufeff{"k": "😀"}'.encode(), "x", 10) == {"k": "😀"}
    assert parse(json.dumps({"k": "," * 5000 + '\\"' * 100}).encode(), "x", 3) == {"k": "," * 5000 + '\\"' * 100}
    assert parse(b'{"k": 1e-999}', "x", 10) == {"k": 0.0}


@pytest.mark.parametrize("end", [b"", b"\\", b'\\"', b'"', b"]"])
def test_counting_values_takes_linear_time(end: bytes) -> None:
    """With this many unterminated strings, quadratic time would be hours."""
    for unit in (b'\\"', b'"', b"\\", b'"\\', b'"a\\"'):
        with pytest.raises(RequestError):
            parse(b'["' + unit * 500_000 + end, "x", 10)


def test_texts_that_cannot_be_stored() -> None:
    assert unfit_text("é😀\n\t") is None and unfit_text("") is None
    assert "NUL" in (unfit_text("a\0") or "") and "surrogate" in (unfit_text("\udfff") or "")


def test_whole_numbers_with_a_point_keep_their_digits() -> None:
    """Converted to doubles, they would also match neighbouring numbers."""
    assert Query.model_validate(parse(b'{"equals": {"serial": 9007199254740993.0}}', "the body", 9)).equals == {
        "serial": 9007199254740993
    }
    weight = parse(b"1e300", "the body", 1)
    assert (weight, type(weight)) == (1e300, float)
