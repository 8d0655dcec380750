"""What surrounds every request: headers of the answer, names of the service, caps, time-outs, counts, unexpected errors."""

import asyncio
import time
from collections.abc import MutableMapping
from typing import Any, final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tbps.errors import RequestError, TbpsError
from tbps.server.answers import answer_of, internal, log
from tbps.server.limits import Ticket, ticket
from tbps.server.security import refusal_of_origin
from tbps.server.service import Service

LONG = (("POST", "/v1/index"), ("POST", "/v1/forget"))  # an erasure writes the gallery anew
FORMS = ("/v1/index", "/v1/similar")  # which have caps of their own
QUICK = ("/healthz",)  # answered however much waits

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


@final
class Outside:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        began = time.perf_counter()
        try:
            await self._answer(scope, receive, answer)
        except ClientDisconnect:
            answer.status = answer.status or 499
        except TbpsError as error:
            await self._instead(answer_of(error), answer, scope, receive)
        except Exception:  # whatever it is, it is said to the log and not to whoever asked
            self._service.metrics.failures.inc()
            log.exception("%s %s", scope["method"], scope["path"])
            await self._instead(internal(), answer, scope, receive)
        finally:
            self._count(scope, answer.status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        settings = self._service.settings
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if (reason := refusal_of_origin(headers, settings)) is not None:
            raise RequestError(403, "origin", reason)
        if scope["path"] in QUICK:
            await self._app(scope, receive, answer)
            return
        if self._under_way >= settings.at_once + settings.waiting:
            raise RequestError(503, "busy", "too many requests wait for their turn; ask again in a moment", 1)
        seconds = settings.long_timeout if (scope["method"], scope["path"]) in LONG else settings.timeout
        mine = Ticket(time.monotonic() + seconds)
        is_form = headers.get("content-type", "").lower().startswith("multipart/form-data")
        most = None if is_form and scope["path"] in FORMS else settings.body_bytes
        if most is not None and _length(headers) > most:
            raise _too_large(most)
        body = _Body(receive, most, mine)
        token = ticket.set(mine)
        self._under_way += 1
        self._service.metrics.under_way.set(self._under_way)
        try:
            async with asyncio.timeout(seconds):
                await self._app(scope, body, answer)
        except TimeoutError as error:
            raise RequestError(503, "timeout", "the request took too long; ask again in a moment", 2) from error
        finally:
            self._under_way -= 1
            self._service.metrics.under_way.set(self._under_way)
            mine.gone.set()
            body.leave()
            ticket.reset(token)

    async def _instead(self, response: ASGIApp, answer: "_Answer", scope: Scope, receive: Receive) -> None:
        """Answers with an error, unless an answer has begun."""
        if not answer.status:
            await response(scope, receive, answer)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"  # an unknown path or method names no series of its own
        method = "other" if route == "other" else scope["method"]
        self._service.metrics.requests.labels(method, route, str(status)).inc()
        self._service.metrics.seconds.labels(route).observe(seconds)


@final
class _Answer:
    """Sends with the headers that every answer has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name.lower() for name, _ in message["headers"]}
            own = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in given]
            if b"cache-control" not in given:
                own.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*message["headers"], *own]}
        await self._send(message)


@final
class _Body:
    """Receives with a cap on bytes, and notices when nobody waits for the answer any more."""

    def __init__(self, receive: Receive, most: int | None, mine: Ticket) -> None:
        self._receive, self._most, self._ticket = receive, most, mine
        self._bytes = 0
        self._watch: asyncio.Task[None] | None = None

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._watch is not None:  # the body is over; what comes is the end of the connection
            await self._watch
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._ticket.gone.set()
            return message
        self._bytes += len(message.get("body", b""))
        if self._most is not None and self._bytes > self._most:
            raise _too_large(self._most)
        if not message.get("more_body", False):
            self._watch = asyncio.create_task(self._until_gone())
        return message

    def leave(self) -> None:
        """Stops watching."""
        if self._watch is not None:
            self._watch.cancel()

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._ticket.gone.set()


def _length(headers: dict[str, str]) -> int:
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _too_large(most: int) -> RequestError:
    return RequestError(413, "too_large", f"the request has more than {most:,} bytes")
