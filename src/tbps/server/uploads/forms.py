"""Reads multipart forms with files: streams files to disk and enforces limits while the bytes arrive.

A file's name on disk is a number; the name from the sender is kept as text and never used as a path.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tbps.errors import RequestError
from tbps.server.strict_json import unfit_text
from tbps.storage import writing_to

_FIELD_BYTES = 2**18
_FIELDS = 32
_NAME_LENGTH = 120


@dataclass(frozen=True, slots=True)
class FormLimits:
    """Limits on a form.

    field: name of the form field that contains files; files: most files; file_bytes: most bytes per file; bytes: most bytes of the
    whole form.
    """

    field: str
    files: int
    file_bytes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form. name: cleaned name from the sender; file: path on disk; size: bytes."""

    name: str
    file: Path
    size: int


@dataclass(frozen=True, slots=True)
class Form:
    """Text fields and files of a form."""

    fields: dict[str, str]
    files: tuple[Upload, ...]


async def read_form(request: Request, limits: FormLimits, folder: Path, run: Callable[..., object]) -> Form:
    """Read a multipart form; its files are written to an existing folder.

    run: coroutine function that runs a function in a thread. Raises RequestError.
    """
    media, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if media != b"multipart/form-data" or not boundary:
        raise RequestError(415, "form", "send a multipart/form-data form")
    writer = _Writer(limits, folder)
    try:
        parser = MultipartParser(boundary, writer.callbacks())  # type: ignore[arg-type]  # its type requires every callback
        total = 0
        async for chunk in request.stream():
            total += len(chunk)
            if total > limits.bytes:
                raise _too_large(limits)
            await run(parser.write, chunk)  # type: ignore[misc]  # `run` is any coroutine function
        parser.finalize()
    except FormParserError as error:
        raise RequestError(400, "form", f"the form is malformed ({error})") from error
    finally:
        writer.close()
    if not writer.ended:
        raise RequestError(400, "form", "the form ends early")
    return Form(writer.fields, tuple(writer.files))


def plain_name(name: str) -> str:
    """Clean a file name from a sender: no folders, no control characters, no leading dot, at most 120 characters."""
    last = re.split(r"[/\\]", name)[-1].encode("utf-8", "replace").decode()
    kept = "".join(c for c in last if not unicodedata.category(c).startswith("C")).strip().lstrip(".")
    stem, dot, suffix = kept.rpartition(".")
    if len(kept) > _NAME_LENGTH:
        kept = f"{stem[: _NAME_LENGTH - 8]}{dot}{suffix[:7]}"
    return kept or "upload"


def _too_large(limits: FormLimits) -> RequestError:
    return RequestError(413, "too_large", f"the form has more than {limits.bytes:,} bytes; send less at a time")


@dataclass(slots=True)
class _Part:
    headers: dict[str, bytes] = field(default_factory=dict)
    field: str = ""
    file_name: str | None = None
    size: int = 0


@final
class _Writer:
    """Callbacks of the parser: writes files to disk and keeps text fields."""

    def __init__(self, limits: FormLimits, folder: Path) -> None:
        self._limits, self._folder = limits, folder
        self._part = _Part()
        self._name, self._value, self._text = bytearray(), bytearray(), bytearray()
        self._file: BinaryIO | None = None
        self.fields: dict[str, str] = {}
        self.files: list[Upload] = []
        self.ended = False

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._headers,
            "on_part_data": lambda data, start, end: self._data(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self._part, self._text = _Part(), bytearray()

    def _header(self) -> None:
        self._part.headers[bytes(self._name).decode("latin-1").lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _headers(self) -> None:
        _, options = parse_options_header(self._part.headers.get("content-disposition", b""))
        self._part.field = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            if len(self.fields) >= _FIELDS:
                raise RequestError(413, "too_large", f"the form has more than {_FIELDS} fields")
            return
        if self._part.field != self._limits.field:
            raise RequestError(400, "form", f"files are sent as {self._limits.field!r}, not as {self._part.field[:50]!r}")
        if len(self.files) >= self._limits.files:
            raise RequestError(413, "too_large", f"more than {self._limits.files:,} files; send fewer at a time")
        self._part.file_name = plain_name(options[b"filename"].decode("utf-8", "replace"))
        with writing_to(self._folder):
            self._file = (self._folder / f"{len(self.files):04d}").open("xb")

    def _data(self, content: bytes) -> None:
        self._part.size += len(content)
        if self._file is None:
            if self._part.size > _FIELD_BYTES:
                raise RequestError(413, "too_large", f"field {self._part.field[:50]!r} has more than {_FIELD_BYTES:,} bytes")
            self._text += content
            return
        if self._part.size > self._limits.file_bytes:
            raise RequestError(
                413, "too_large", f"{self._part.file_name} has more than {self._limits.file_bytes:,} bytes; shrink or split it"
            )
        with writing_to(self._folder):
            self._file.write(content)

    def _end(self) -> None:
        if self._file is None:
            self._take_field()
            return
        with writing_to(self._folder):
            self._file.close()
        place, self._file = Path(self._file.name), None
        self.files.append(Upload(self._part.file_name or "upload", place, self._part.size))

    def _take_field(self) -> None:
        name = self._part.field
        if name in self.fields:
            raise RequestError(400, "form", f"field {name[:50]!r} was sent twice; send it once")
        try:
            text = self._text.decode()
        except UnicodeDecodeError as error:
            raise RequestError(400, "form", f"field {name[:50]!r} is not UTF-8 text") from error
        if (problem := unfit_text(text) or unfit_text(name)) is not None:
            raise RequestError(400, "form", f"field {name[:50]!r} {problem}")
        self.fields[name] = text

    def _all(self) -> None:
        self.ended = True
