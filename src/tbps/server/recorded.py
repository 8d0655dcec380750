"""Audit entry of a request: one line, whether the request is answered, refused or fails."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, final

from tbps.errors import RequestError
from tbps.server.audit import Audit
from tbps.server.callers.gate import Caller
from tbps.server.callers.limits import ticket
from tbps.server.faults import fault_of

_MESSAGE_LENGTH = 500


@final
class Entry:
    """Line of the audit log for one request; written once, by the first call of `answered` or `ended`.

    asked: fields about the request; set them as soon as they are known.
    """

    def __init__(self, audit: Audit, caller: Caller, deed: str) -> None:
        self._audit, self._caller, self._deed = audit, caller, deed
        self._lock, self._written = threading.Lock(), False
        self.asked: dict[str, Any] = {}

    def answered(self, **facts: Any) -> None:
        """Write the line before an answer is sent. Raises RequestError if the request has timed out, StorageError."""
        mine = ticket.get()
        with self._lock:
            if self._written or (mine is not None and not mine.left()):
                raise RequestError(503, "timeout", "the request took too long; try again in a moment", 2)
            self._write(**facts)

    def ended(self, error: BaseException) -> None:
        """Write the line with the error that ended the request, unless it is written already. Raises StorageError."""
        fault = fault_of(error)
        facts: dict[str, Any] = {"ended": "failed", "status": fault.status, "code": fault.code}
        if fault.status < 499:
            facts |= {"ended": "refused", "message": fault.message[:_MESSAGE_LENGTH]}
        with self._lock:
            if not self._written:
                self._write(**facts)

    def _write(self, **facts: Any) -> None:
        self._audit.write(self._caller.name, self._caller.id, self._deed, **self.asked, **facts)
        self._written = True


@asynccontextmanager
async def recorded(entry: Entry, run: Callable[..., Awaitable[None]]) -> AsyncIterator[Entry]:
    """Context manager for one request: writes exceptions of the block to the audit log and re-raises them.

    run: coroutine function that runs a function in a thread.
    """
    try:
        yield entry
    except BaseException as error:  # includes CancelledError, which ends a request that has timed out
        await asyncio.shield(run(entry.ended, error))
        raise
