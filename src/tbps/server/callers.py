"""Callers and their keys: who sends a request, sessions of browsers, throttling of key guessing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from fastapi import Request

from tbps.errors import RequestError
from tbps.server.addresses import group_of
from tbps.server.keys import Key, Keys, Role
from tbps.server.limits import Rates, whole_seconds
from tbps.server.sessions import Sessions, cookie_name
from tbps.server.settings import ServiceSettings

OPEN_NAME = "this machine"
_ALL_ADDRESSES = 10  # so many times the wrong keys of one address are answered one by one from all addresses together


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. id: of the key, "" where none is needed; cameras: all there is for them, None: everything.

    by_header: the key came along, not a cookie.
    """

    id: str
    name: str
    role: Role
    cameras: tuple[str, ...] | None = None
    open: bool = False
    by_header: bool = False


@final
class Gate:
    """Identifies callers by key or session; throttles key guessing."""

    def __init__(self, settings: ServiceSettings, keys: Keys, state: Path, refused: Callable[[str], Awaitable[None]]) -> None:
        """refused: told the address that a wrong key came from."""
        self._keys, self._refused = keys, refused
        self._may_be_open = settings.on_loopback and not settings.allow_hosts and not keys.all()
        self.sessions = Sessions(keys, settings.session_hours)
        self.cookie = cookie_name(state)
        self.rates = Rates(settings.searches_per_minute or 1_000_000_000)
        self.told = Rates(1)
        self._failures = Rates(settings.failures_per_minute)
        self._all_failures = Rates(_ALL_ADDRESSES * settings.failures_per_minute)

    def is_open(self) -> bool:
        """Whether everybody is administrator: until the first key is made, and then never again."""
        self._may_be_open = self._may_be_open and not self._keys.all()
        return self._may_be_open

    async def caller(self, request: Request) -> Caller:
        """Who asks. Raises RequestError (401), 429 for whoever tries many keys."""
        scheme, _, secret = request.headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() == "bearer" and secret.strip():
            return called(await self.checked(request, secret.strip()), by_header=True)
        if self.is_open():
            return Caller("", OPEN_NAME, Role.administrator, open=True)
        token = request.cookies.get(self.cookie)
        key = None if token is None else self.sessions.key_of(token)
        if key is None:
            raise RequestError(
                401,
                "signed_out",
                "sign in with a key, or send it in the header Authorization: Bearer KEY; the service's keeper makes one with: "
                "tbps keys add",
            )
        return called(key)

    async def checked(self, request: Request, secret: str) -> Key:
        """The key that a secret is. A right one is accepted whatever came from its address before: nobody can lock others out."""
        key = self._keys.find(secret)
        if key is not None:
            return key
        address = request.client.host if request.client else "?"
        if wait := self._failures.wait(group_of(address)) or self._all_failures.wait(""):
            raise RequestError(429, "rate", "too many wrong keys; wait a moment", whole_seconds(wait))
        await self._refused(address)
        raise RequestError(401, "key", "there is no such key; the service's keeper lists them with: tbps keys list")


def called(key: Key, by_header: bool = False) -> Caller:
    """The caller that a key's holder is."""
    return Caller(key.id, key.name, key.role, key.cameras, by_header=by_header)
