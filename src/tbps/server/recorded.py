"""The line that a request leaves in the audit log, however it ends: answered, refused or failed."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, final

from tbps.errors import RequestError
from tbps.server.answers import fault_of
from tbps.server.audit import Audit
from tbps.server.callers import Caller
from tbps.server.limits import ticket

_MESSAGE = 500


@final
class Entry:
    """One line, written once: by `answered` or by `ended`, whichever comes first.

    asked: what was asked, as far as it is known by then.
    """

    def __init__(self, audit: Audit, caller: Caller, deed: str) -> None:
        self._audit, self._caller, self._deed = audit, caller, deed
        self._lock, self._written = threading.Lock(), False
        self.asked: dict[str, Any] = {}

    def answered(self, **facts: Any) -> None:
        """Says what is about to be answered. Raises RequestError where nobody waits for that any more, StorageError."""
        mine = ticket.get()
        with self._lock:
            if self._written or (mine is not None and not mine.left()):
                raise RequestError(503, "timeout", "the request took too long; ask again in a moment", 2)
            self._write(**facts)

    def ended(self, error: BaseException) -> None:
        """Says how it ended instead, unless it was answered. Raises StorageError: then nothing else may be said either."""
        fault = fault_of(error)
        facts: dict[str, Any] = {"ended": "failed", "status": fault.status, "code": fault.code}
        if fault.status < 499:
            facts |= {"ended": "refused", "message": fault.message[:_MESSAGE]}
        with self._lock:
            if not self._written:
                self._write(**facts)

    def _write(self, **facts: Any) -> None:
        self._audit.write(self._caller.name, self._caller.id, self._deed, **self.asked, **facts)
        self._written = True


@asynccontextmanager
async def recorded(entry: Entry, run: Callable[..., Awaitable[None]]) -> AsyncIterator[Entry]:
    """Whatever is raised in the block is in the log before it goes on; `run` awaits a function in a thread."""
    try:
        yield entry
    except BaseException as error:  # also the end of a request's time, which comes as CancelledError
        await asyncio.shield(run(entry.ended, error))
        raise
