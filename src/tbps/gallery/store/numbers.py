"""Exact numbers: parsing text, conversion to 64 bits, and numbers as names of people and cameras.

A double holds every whole number up to 2^53; above, neighbouring whole numbers are rounded to the same double. So whole numbers are
never compared as doubles.
"""

import math
import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from tbps.preprocess import names
from tbps.redact import redacted

Number = int | float | Fraction

MOST_DIGITS = 400  # maximum length of a number's text; the largest double has 309 digits before the point
LEAST_INTEGER, MOST_INTEGER = -(2**63), 2**63 - 1
EXACT = 2**53

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
_PLAIN = re.compile(r"-?(?:0|[1-9][0-9]{0,308})")


def parse_number(text: str) -> Number | None:
    """Parses a number: an int if it is whole (also 1e3 and 1000.0), else the nearest double; None if it is no finite number.

    A number above 2^53, where doubles skip whole numbers, stays exact as int or Fraction, unless it is written as Python prints a
    double, such as 1e+300.
    """
    text = text.strip()
    if len(text) > MOST_DIGITS or not _NUMBER.fullmatch(text):
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    if value and not -MOST_DIGITS < value.adjusted() < 309:
        return None if value.adjusted() > 0 else 0
    above, below = value.as_integer_ratio()
    if abs(above) >= EXACT * below:
        is_printed = not text.lstrip("+-").isdigit() and Decimal(repr(float(text))) == value
        return float(text) if is_printed else above if below == 1 else Fraction(above, below)
    return above if below == 1 else float(text)


def is_finite(value: int | float) -> bool:
    """Whether a number is neither infinite nor NaN; whole numbers of any size are finite."""
    return isinstance(value, int) or math.isfinite(value)


def as_double(value: int | float) -> float | None:
    """A number as a double; None if it is not finite, or a whole number that would lose digits."""
    try:
        double = float(value)
    except OverflowError:
        return None
    return double if math.isfinite(double) and double == value else None


def as_integer(value: int | float) -> int | None:
    """A number as a 64-bit integer; None if it is not whole or too large."""
    if not is_finite(value) or int(value) != value:
        return None
    return int(value) if LEAST_INTEGER <= value <= MOST_INTEGER else None


def number_name(value: int | float) -> str:
    """Formats a number as a name; whole numbers have no decimal point, so that 7, 7.0 and 7e0 become "7"."""
    return str(int(value)) if is_finite(value) and int(value) == value else repr(value)


def canonical_name(text: str) -> str:
    """A name as galleries store it: normalised by `label`, without passwords of network addresses; "7.0" becomes "7"."""
    text = names.label(redacted(text, queries=False))
    found = _WHOLE.fullmatch(text)
    if found is None:
        return text
    return "0" if found[1] == "-0" else found[1]


def spellings(text: str) -> tuple[str, ...]:
    """All spellings under which a gallery may hold a name.

    These are the canonical name, the text as given (composed and decomposed), which version 0.1 stored, and for a whole number the
    text of the double with its value.
    """
    name = canonical_name(text)
    if not _PLAIN.fullmatch(name):
        return tuple(dict.fromkeys([name, *names.spellings(text), *names.spellings(name)]))
    double = as_double(int(name))
    return tuple(dict.fromkeys([name, f"{name}.0", *([] if double is None else [repr(double)])]))
