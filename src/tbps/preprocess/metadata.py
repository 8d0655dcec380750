"""Reading of `metadata.jsonl`: one JSON object per image (the `imagefolder` convention of Hugging Face).

    {"file_name": "a/0001.jpg", "caption": "a woman in a red coat", "camera": "lobby"}

`file_name` is relative to the folder of the file. `caption` (text) or `captions` (list of texts) is optional; all other columns are
kept unchanged.
"""

import io
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn, TypeAlias

from tbps.errors import AnnotationError
from tbps.preprocess.names import composed, file_key

METADATA_FILE = "metadata.jsonl"
_EXACT = 2**53  # every whole number up to this one is exact as a double

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"


@dataclass(frozen=True, slots=True)
class MetadataRow:
    """One line of a `metadata.jsonl`. `line`: its number, from 1; `columns`: all fields except file name and captions."""

    line: int
    file_name: str
    captions: tuple[str, ...]
    columns: Mapping[str, JSON]


def read_metadata(file: Path) -> Iterator[MetadataRow]:
    """Yields the rows of a `metadata.jsonl` in order, without blank lines.

    Raises AnnotationError, which names file, line and field, if the file is unreadable or not UTF-8, or if a line is not a JSON
    object, has no `file_name` or has a value of the wrong type. Does not resolve paths (see `resolve_inside`) and does not look for
    duplicates.
    """
    try:
        with file.open(encoding="utf-8-sig") as lines:
            yield from _rows(file, lines)
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{file}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise AnnotationError(f"{file}: cannot be read ({error.strerror})") from error


def parse_metadata(content: bytes, name: str) -> Iterator[MetadataRow]:
    """Yields the rows of a `metadata.jsonl` that is in memory, for example from an archive.

    `name`: name of the file in error messages. Raises as `read_metadata`.
    """
    try:
        lines = io.StringIO(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{name}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    yield from _rows(name, lines)


def parse_columns(content: bytes, name: str) -> dict[str, JSON]:
    """Returns the columns of one image from the content of a JSON file, without captions.

    Raises AnnotationError, with `name`, where it is not a JSON object.
    """
    record = _parse_object(name, content.decode("utf-8-sig", "replace"))
    _captions(name, record)
    return record


def resolve_inside(root: Path, name: str) -> Path:
    """Returns the absolute path of `name` below `root`, with links resolved; the file need not exist.

    If no file has exactly that name, a file is used whose name differs only in the Unicode form of accented letters (composed or
    decomposed) or in backslashes between folders. Raises AnnotationError for an empty or absolute name, one with `..`, or a link
    that leaves `root`.
    """
    if not name.strip() or "\0" in name:
        raise AnnotationError(f"{name!r} is not a file name")
    slashed = name.replace("\\", "/")
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in PurePosixPath(slashed).parts:
        raise AnnotationError(f"path {name!r} leaves the folder {root}; write it relative to that folder, without '..'")
    base = os.path.realpath(root)
    try:
        target = os.path.realpath(os.path.join(base, name))
        if not os.path.lexists(target) and not PurePosixPath(slashed).is_absolute():
            target = os.path.realpath(_spelled_as_on_disk(base, slashed) or target)
    except UnicodeEncodeError as error:
        raise AnnotationError(_no_name(name)) from error
    if os.path.commonpath([base, target]) != base:
        raise AnnotationError(f"path {name!r} leaves the folder {root} through a link to {target}; copy the file instead")
    return Path(target)


def _no_name(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"{name!r} is not a file name"
    return (
        f"{name!r} cannot be a file name in this environment, which writes names in {sys.getfilesystemencoding()}; "
        "set LC_ALL=C.UTF-8 or PYTHONUTF8=1 and run again"
    )


def _spelled_as_on_disk(base: str, slashed: str) -> str | None:
    """Returns the path with each part spelled as on disk, None where a part does not exist."""
    place = base
    for part in file_key(slashed).split("/"):
        step = os.path.join(place, part)
        if not os.path.lexists(step):
            try:
                found = _composed_names(place, os.stat(place).st_mtime_ns).get(part)
            except OSError:
                return None
            if found is None:
                return None
            step = os.path.join(place, found)
        place = step
    return place


@lru_cache(maxsize=64)
def _composed_names(folder: str, changed: int) -> Mapping[str, str]:
    """Returns composed name -> name on disk of the non-ASCII entries of a folder; `changed` (its modification time) is part of the
    cache key.
    """
    return {composed(name): name for name in sorted(os.listdir(folder), reverse=True) if not name.isascii()}


def _rows(name: str | Path, lines: Iterable[str]) -> Iterator[MetadataRow]:
    for number, text in enumerate(lines, start=1):
        if text.strip():
            yield _parse_row(name, number, text)


def strict_json(text: str | bytes) -> Any:
    """Parses JSON strictly and keeps all digits of whole numbers.

    Raises ValueError for NaN and infinite numbers, including `1e999`, which are not valid JSON.
    """
    return json.loads(text, parse_constant=_refuse_constant, parse_float=json_number)


def json_number(text: str) -> int | float:
    """Parses a JSON number that has a decimal point or an exponent.

    A whole number above 2^53 becomes an int if a double would lose digits (9007199254740993.0), except if the text is the printed
    form of a double (1e+300). Raises ValueError for an infinite number.
    """
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:50]} is too large to be stored as a number")
    if abs(value) < _EXACT:
        return value
    exact = Decimal(text)
    is_kept = exact in (Decimal(value), Decimal(repr(value)))
    return value if is_kept or exact != exact.to_integral_value() else int(exact)


def _parse_object(where: str, text: str) -> dict[str, Any]:
    try:
        record = strict_json(text)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{where}: is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise AnnotationError(f"{where}: expected a JSON object, found {type(record).__name__}")
    return record


def _parse_row(file: str | Path, line: int, text: str) -> MetadataRow:
    where = f"{file}: line {line}"
    record = _parse_object(where, text)
    file_name = record.pop("file_name", None)
    if not isinstance(file_name, str) or not file_name.strip():
        raise AnnotationError(f"{where}, field 'file_name': expected the name of an image file, found {file_name!r}")
    return MetadataRow(line, file_name, _captions(where, record), record)


def _captions(where: str, record: dict[str, Any]) -> tuple[str, ...]:
    """Removes `caption` and `captions` from the record and returns them."""
    one, many = record.pop("caption", None), record.pop("captions", None)
    if one is not None and many is not None:
        raise AnnotationError(f"{where}: has both 'caption' and 'captions'; keep one of them")
    if one is not None:
        if not isinstance(one, str):
            raise AnnotationError(f"{where}, field 'caption': expected text, found {type(one).__name__}")
        return (one,)
    if many is None:
        return ()
    if not isinstance(many, list) or not all(isinstance(c, str) for c in many):
        raise AnnotationError(f"{where}, field 'captions': expected a list of texts, found {str(many)[:60]!r}")
    return tuple(many)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def parse_time(value: Any) -> datetime | None:
    """Converts ISO 8601 text or a datetime to UTC without zone; a time without zone is unchanged. None for anything else."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:  # year 1 or 9999, out of range after the conversion
        return None
