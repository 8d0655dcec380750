"""From errors to answers: a status, a word for programs and one sentence for people, and nothing else of this machine."""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from tbps.errors import (
    BusyError,
    DataError,
    GalleryError,
    ImageError,
    MissingDependencyError,
    ModelError,
    QueryError,
    RequestError,
    SettingsError,
    StorageError,
    TbpsError,
    UnknownIdError,
)

log = logging.getLogger("tbps.server")

# The message of these is made of what the caller sent. Of all others it may hold paths of this machine, which go to the log only.
_SPOKEN: tuple[tuple[type[TbpsError], int, str], ...] = (
    (UnknownIdError, 404, "unknown_id"),
    (QueryError, 400, "query"),
    (ImageError, 400, "image"),
    (DataError, 400, "data"),
    (SettingsError, 400, "settings"),
    (MissingDependencyError, 503, "missing"),
)
_LONGEST = 4000
_KEEPER = "its keeper finds the reason in the log"
_SILENT: tuple[tuple[type[TbpsError], str, str, int], ...] = (
    (BusyError, "busy", "another process is writing to the gallery; ask again in a moment", 5),
    (GalleryError, "gallery", f"the gallery cannot be read at the moment; {_KEEPER}", 30),
    (ModelError, "model", f"the model cannot be used at the moment; {_KEEPER}", 30),
    (StorageError, "storage", f"the service cannot write what it must, so nothing is answered; {_KEEPER}", 30),
)


class JSONAnswer(Response):
    """JSON of any text, lone surrogates included."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def error_answer(status: int, code: str, message: str, retry_after: int | None = None) -> Response:
    """The JSON of an error."""
    headers: Mapping[str, str] = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return JSONAnswer({"error": {"code": code, "message": message}}, status, dict(headers))


@dataclass(frozen=True, slots=True)
class Fault:
    """What is said of an error: the status, a word for programs, one sentence, and seconds after which to ask again."""

    status: int
    code: str
    message: str
    retry_after: int | None = None

    def answer(self) -> Response:
        """As an answer."""
        return error_answer(self.status, self.code, self.message, self.retry_after)


def fault_of(error: BaseException) -> Fault:
    """What is said of an error, of one that nobody expected too."""
    if isinstance(error, RequestError):
        return Fault(error.status, error.code, _short(str(error)), error.retry_after)
    for kind, status, code in _SPOKEN:
        if isinstance(error, kind):
            return Fault(status, code, _short(str(error)))
    for silent, code, message, retry in _SILENT:
        if isinstance(error, silent):
            return Fault(503, code, message, retry)
    if isinstance(error, asyncio.CancelledError | TimeoutError):
        return Fault(503, "timeout", "the request took too long; ask again in a moment", 2)
    if isinstance(error, ClientDisconnect):
        return Fault(499, "gone", "the client closed the connection")
    return Fault(500, "internal", f"the service failed; {_KEEPER}")


def answer_of(error: TbpsError) -> Response:
    """What is answered to an error that was raised on purpose; what is not said is written to the log."""
    if not isinstance(error, (RequestError, *(kind for kind, _, _ in _SPOKEN))):
        log.error("%s: %s", type(error).__name__, error)
    return fault_of(error).answer()


def internal() -> Response:
    """What is answered to an error that nobody expected."""
    return fault_of(Exception()).answer()


def _short(message: str) -> str:
    """One line, however much of what the caller sent stands in it."""
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
