"""Outermost ASGI middleware: Host and Origin checks, time limits, security headers, metrics, error answers."""

import asyncio
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Any, final
from urllib.parse import unquote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tbps.errors import RequestError, TbpsError
from tbps.server.callers.addresses import Addresses
from tbps.server.callers.limits import Patience, Ticket, ticket
from tbps.server.faults import answer_of, internal, log
from tbps.server.service import Service

LONG = (("POST", "/v1/index"), ("POST", "/v1/forget"))  # an erasure rewrites the gallery
FORMS = ("/v1/index", "/v1/similar")  # their bodies may be large

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
    """ASGI middleware around the whole application; see the module."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

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
        except Exception:  # logged; the caller gets no details
            self._service.metrics.failures.inc()
            log.exception("%s %s", scope["method"], scope["path"])
            await self._instead(internal(), answer, scope, receive)
        finally:
            self._count(scope, answer.status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        settings, addresses = self._service.settings, self._service.addresses
        headers = _headers(scope)
        _apply_forwarded(scope, addresses)
        _refuse_nul(scope)
        if (reason := addresses.refusal(headers)) is not None:
            raise RequestError(403, "origin", reason)
        seconds = settings.long_timeout if (scope["method"], scope["path"]) in LONG else settings.timeout
        mine = Ticket(time.monotonic() + seconds)
        patience = Patience(settings.body_seconds, stall=settings.stall_seconds)
        if scope["path"] in FORMS and headers.get("content-type", "").lower().startswith("multipart/form-data"):
            patience = replace(patience, rate=settings.upload_rate)
        body = answer.body = _Body(receive, patience, mine, _has_body(headers))
        token = ticket.set(mine)
        try:
            async with asyncio.timeout(seconds):
                await self._app(scope, body, answer)
        except TimeoutError as error:
            raise RequestError(503, "timeout", "the request took too long; try again in a moment", 2) from error
        finally:
            self._service.places.leave(mine)
            self._service.metrics.under_way.set(self._service.places.taken)
            mine.gone.set()
            body.leave()
            ticket.reset(token)

    async def _instead(self, response: ASGIApp, answer: "_Answer", scope: Scope, receive: Receive) -> None:
        """Send an error answer, unless another answer has begun."""
        if not answer.status:
            await response(scope, receive, answer)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "other"  # unknown paths and methods must not create time series
        method = "other" if route == "other" else scope["method"]
        self._service.metrics.requests.labels(method, route, str(status)).inc()
        self._service.metrics.seconds.labels(route).observe(seconds)


@final
class _Answer:
    """ASGI `send` that adds security headers to every answer. status: HTTP status, 0 before the answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.body: _Body | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name.lower() for name, _ in message["headers"]}
            own = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in given]
            if b"cache-control" not in given:
                own.append((b"cache-control", b"no-store"))
            if self.body is not None and self.body.unread:  # the rest of a refused request is not read
                own.append((b"connection", b"close"))
            message = {**message, "headers": [*message["headers"], *own]}
        await self._send(message)


@final
class _Body:
    """ASGI `receive` with a time limit; after the body, it watches for a disconnect.

    unread: whether part of the body has not been received.
    """

    def __init__(self, receive: Receive, patience: Patience, mine: Ticket, unread: bool) -> None:
        self._receive, self._patience, self._ticket = receive, patience, mine
        self.unread = unread
        self._bytes, self._waited = 0, 0.0
        self._watch: asyncio.Task[None] | None = None

    async def __call__(self) -> MutableMapping[str, Any]:
        if self._watch is not None:  # after the body only a disconnect can follow
            await self._watch
            return {"type": "http.disconnect"}
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, self._patience.left(self._waited, self._bytes))):
                message = await self._receive()
        except TimeoutError as error:
            raise RequestError(408, "slow", "the body of the request did not arrive in time; send it again, faster") from error
        self._waited += time.monotonic() - began
        if message["type"] == "http.disconnect":
            self._ticket.gone.set()
            return message
        self._bytes += len(message.get("body", b""))
        if not message.get("more_body", False):
            self.unread = False
            self._watch = asyncio.create_task(self._until_gone())
        return message

    def leave(self) -> None:
        """Stop watching the connection."""
        if self._watch is not None:
            self._watch.cancel()

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._ticket.gone.set()


def _headers(scope: Scope) -> dict[str, str]:
    """Headers by name in lower case; values of repeated ones are joined by commas."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _apply_forwarded(scope: Scope, addresses: Addresses) -> None:
    """Replace address and scheme in the scope by those that a trusted proxy forwards."""
    if not scope.get("client"):
        return
    peer, port = scope["client"]
    if not addresses.trusts(peer):
        return
    given = [(name, value.decode("latin-1")) for name, value in scope["headers"]]
    scope["scheme"] = addresses.scheme(peer, [value for name, value in given if name == b"x-forwarded-proto"], scope["scheme"])
    client = addresses.client(peer, [value for name, value in given if name == b"x-forwarded-for"])
    scope["client"] = client, port if client == peer else 0


def _refuse_nul(scope: Scope) -> None:
    """Raise RequestError if path or query contain a NUL character, which the database treats as the end of a text."""
    if "\0" in scope["path"]:
        raise RequestError(404, "not_found", "the path contains a NUL character; there is no such page")
    if "\0" in unquote(scope.get("query_string", b"").decode("latin-1")):
        raise RequestError(400, "request", "the query string contains a NUL character; leave it out")


def _has_body(headers: Mapping[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
