"""From errors to answers: a status, a word for programs and one sentence for people, and nothing else of this machine."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi.responses import Response

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


def answer_of(error: TbpsError) -> Response:
    """What is said of an error raised on purpose."""
    if isinstance(error, RequestError):
        return error_answer(error.status, error.code, str(error), error.retry_after)
    for kind, status, code in _SPOKEN:
        if isinstance(error, kind):
            return error_answer(status, code, " ".join(str(error).split()))
    log.error("%s: %s", type(error).__name__, error)
    for silent, code, message, retry in _SILENT:
        if isinstance(error, silent):
            return error_answer(503, code, message, retry)
    return internal()


def internal() -> Response:
    """What is said of an error that nobody expected."""
    return error_answer(500, "internal", f"the service failed; {_KEEPER}")
