"""Error answers: HTTP status, a machine-readable code and one sentence for people, without details of this machine."""

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

# Messages of these errors contain only what the caller sent. Other messages may contain paths of this machine and are only logged.
_PUBLIC: tuple[tuple[type[TbpsError], int, str], ...] = (
    (UnknownIdError, 404, "unknown_id"),
    (QueryError, 400, "query"),
    (ImageError, 400, "image"),
    (DataError, 400, "data"),
    (SettingsError, 400, "settings"),
    (MissingDependencyError, 503, "missing"),
)
_LONGEST = 4000
_REASON = "the operator of the service can find the reason in the log"
_INTERNAL: tuple[tuple[type[TbpsError], str, str, int], ...] = (
    (BusyError, "busy", "another process is writing to the gallery; try again in a moment", 5),
    (GalleryError, "gallery", f"the gallery cannot be read at the moment; {_REASON}", 30),
    (ModelError, "model", f"the model cannot be used at the moment; {_REASON}", 30),
    (StorageError, "storage", f"the service cannot write to its disk, so nothing is answered; {_REASON}", 30),
)


class JSONAnswer(Response):
    """JSON answer; texts may contain lone surrogates."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def error_answer(status: int, code: str, message: str, retry_after: int | None = None) -> Response:
    """Answer to an error as JSON."""
    headers: Mapping[str, str] = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return JSONAnswer({"error": {"code": code, "message": message}}, status, dict(headers))


@dataclass(frozen=True, slots=True)
class Fault:
    """Public description of an error.

    code: machine-readable; message: one sentence; retry_after: seconds after which the caller should try again.
    """

    status: int
    code: str
    message: str
    retry_after: int | None = None

    def answer(self) -> Response:
        """The error as an answer."""
        return error_answer(self.status, self.code, self.message, self.retry_after)


def fault_of(error: BaseException) -> Fault:
    """Public description of any exception."""
    if isinstance(error, RequestError):
        return Fault(error.status, error.code, _short(str(error)), error.retry_after)
    for kind, status, code in _PUBLIC:
        if isinstance(error, kind):
            return Fault(status, code, _short(str(error)))
    for internal_kind, code, message, retry in _INTERNAL:
        if isinstance(error, internal_kind):
            return Fault(503, code, message, retry)
    if isinstance(error, asyncio.CancelledError | TimeoutError):
        return Fault(503, "timeout", "the request took too long; try again in a moment", 2)
    if isinstance(error, ClientDisconnect):
        return Fault(499, "gone", "the client closed the connection")
    return Fault(500, "internal", f"the service failed; {_REASON}")


def answer_of(error: TbpsError) -> Response:
    """Answer to an expected error; if its message is not public, it is written to the log."""
    if not isinstance(error, (RequestError, *(kind for kind, _, _ in _PUBLIC))):
        log.error("%s: %s", type(error).__name__, error)
    return fault_of(error).answer()


def internal() -> Response:
    """Answer to an unexpected error."""
    return fault_of(Exception()).answer()


def _short(message: str) -> str:
    """A message on one line, shortened."""
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
