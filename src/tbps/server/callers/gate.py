"""Identification of callers by key or session, and throttling of key guessing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from fastapi import Request

from tbps.errors import RequestError
from tbps.server.callers.addresses import group_of
from tbps.server.callers.keys import Key, Keys, Role
from tbps.server.callers.limits import Rates, whole_seconds
from tbps.server.callers.sessions import Sessions, cookie_name

OPEN_NAME = "this machine"
_ALL_ADDRESSES = 10  # limit on wrong keys from all addresses together, as a multiple of the limit per address
_NO_LIMIT = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Sender of a request.

    id: id of the key, "" for a service without keys; cameras: cameras that the key may see, None for all; open: whether the service
    has no keys; by_header: whether the key was sent in a header rather than as a session cookie.
    """

    id: str
    name: str
    role: Role
    cameras: tuple[str, ...] | None = None
    open: bool = False
    by_header: bool = False


@dataclass(frozen=True, slots=True)
class GateSettings:
    """Settings of a `Gate`.

    loopback_only: whether only this machine can reach the service, so that keys are optional. Other fields: see `ServiceSettings`.
    """

    loopback_only: bool
    session_hours: float
    searches_per_minute: int
    failures_per_minute: int


@final
class Gate:
    """Identifies callers by key or session; throttles key guessing.

    rates: rate limit on searches, by key; refusal_lines: rate limit on audit lines about refused searches, one per key and minute.
    """

    def __init__(self, settings: GateSettings, keys: Keys, state: Path, on_wrong_key: Callable[[str], Awaitable[None]]) -> None:
        """on_wrong_key: called with the client address of each wrong key."""
        self._keys, self._on_wrong_key = keys, on_wrong_key
        self._may_be_open = settings.loopback_only and not keys.all()
        self.sessions = Sessions(keys, settings.session_hours)
        self.cookie = cookie_name(state)
        self.rates = Rates(settings.searches_per_minute or _NO_LIMIT)
        self.refusal_lines = Rates(1)
        self._failures = Rates(settings.failures_per_minute)
        self._all_failures = Rates(_ALL_ADDRESSES * settings.failures_per_minute)

    def is_open(self) -> bool:
        """Whether every caller is administrator because no key exists. Stays False after the first key was created."""
        self._may_be_open = self._may_be_open and not self._keys.all()
        return self._may_be_open

    async def caller(self, request: Request) -> Caller:
        """Identify the sender of a request.

        Raises RequestError: 401 without a valid key or session, 429 after too many wrong keys.
        """
        scheme, _, secret = request.headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() == "bearer" and secret.strip():
            return caller_with(await self.checked(request, secret.strip()), by_header=True)
        if self.is_open():
            return Caller("", OPEN_NAME, Role.administrator, open=True)
        token = request.cookies.get(self.cookie)
        key = None if token is None else self.sessions.key_of(token)
        if key is None:
            raise RequestError(
                401,
                "signed_out",
                "sign in with a key, or send it in the header Authorization: Bearer KEY; the operator of the service creates one "
                "with: tbps keys add",
            )
        return caller_with(key)

    async def checked(self, request: Request, secret: str) -> Key:
        """Return the key with this secret. Raises RequestError: 401 for a wrong key, 429 after too many wrong keys.

        A valid key is accepted even after wrong ones from the same address, so that nobody can lock out others who share the
        address.
        """
        key = self._keys.find(secret)
        if key is not None:
            return key
        address = request.client.host if request.client else "?"
        if wait := self._failures.wait(group_of(address)) or self._all_failures.wait(""):
            raise RequestError(429, "rate", "too many wrong keys; wait a moment", whole_seconds(wait))
        await self._on_wrong_key(address)
        raise RequestError(401, "key", "there is no such key; the operator of the service lists the keys with: tbps keys list")


def caller_with(key: Key, by_header: bool = False) -> Caller:
    """The caller who holds a key."""
    return Caller(key.id, key.name, key.role, key.cameras, by_header=by_header)
