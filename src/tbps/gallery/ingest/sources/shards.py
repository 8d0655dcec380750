"""Brace patterns that name many files at once, such as "people-{000..012}.tar" and "{train,val}.zip"."""

import os
import re
from itertools import product

from tbps.errors import DataError

_MAX_FILES = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")


def expand_braces(pattern: str) -> list[str]:
    """Every path that a pattern names, in order; only some of them need to exist.

    Raises DataError when it has no braces, names more than 100,000 files, or none of its files exists.
    """
    choices = [_choices(part) for part in _BRACES.findall(pattern)]
    total = 1
    for options in choices:
        total *= len(options)
    if not choices or total > _MAX_FILES:
        more = f"; it names {total:,} files, more than {_MAX_FILES:,}" if choices else ""
        raise DataError(f"{pattern} does not exist{more}; give a folder of pictures, an archive or a video")
    parts = _BRACES.split(pattern)[::2]
    names = ["".join(p for pair in zip(parts, (*chosen, ""), strict=True) for p in pair) for chosen in product(*choices)]
    if not any(os.path.exists(name) for name in names):
        raise DataError(f"none of the {total:,} files of {pattern} exists, such as {names[0]}")
    return names


def _choices(part: str) -> list[str]:
    numbers = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", part)
    if numbers is None:
        return part.split(",")
    first, last = (int(number) for number in numbers.groups())
    if last - first >= _MAX_FILES:
        raise DataError(f"{{{part}}} names {last - first + 1:,} files, more than {_MAX_FILES:,}")
    width = len(numbers[1]) if numbers[1].startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(first, last + 1)]
