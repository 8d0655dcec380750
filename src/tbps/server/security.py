"""Who asks, and what there is for them: one guard before every route that shows or changes anything.

A key comes as `Authorization: Bearer KEY` or, in a browser, as the cookie of a session that was begun with a key. Where no key was
ever made and only this machine can reach the service, everybody is administrator ("open"). Every other scheme of that header,
such as Basic, is the business of a proxy before the service: it counts as no key.

A page of another site can make a browser send requests here. It can read none of the answers, and whatever changes something needs
the header X-Tbps, which no other site can set, unless a key comes along in another header. A name that another site's server lets
point to this machine (DNS rebinding) is no name of this service.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from fastapi import Request

from tbps.errors import RequestError
from tbps.search.explain import Explanation
from tbps.search.gallery import Gallery
from tbps.search.hits import Hit, Page
from tbps.search.query import Query
from tbps.search.sources import Picture
from tbps.search.summary import Summary
from tbps.server.addresses import group_of
from tbps.server.keys import Key, Role
from tbps.server.limits import Rates, ticket
from tbps.server.sessions import Sessions, cookie_name

if TYPE_CHECKING:
    from tbps.server.service import Service

HEADER = "x-tbps"
OPEN_NAME = "this machine"
KNOWN = "tbps.known"  # in the scope of a request whose caller is known
_READING = ("GET", "HEAD")
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
@dataclass(frozen=True, slots=True)
class View:
    """The gallery as it is for a caller: the only way in that a route gets, so that no route can leave out the caller's cameras."""

    caller: Caller
    _gallery: Gallery

    def find(self, query: Query, pictures: Sequence[Picture] = ()) -> Page:
        """As `Gallery.find`, without thumbnails: pictures are asked for one by one."""
        self._check_any()
        return self._gallery.find(query, pictures, self.caller.cameras, thumbnails=False)

    def image(self, name: str) -> Hit:
        """As `Gallery.image`."""
        self._check_any()
        return self._gallery.image(name, self.caller.cameras)

    def explain(self, query: Query, name: str) -> Explanation:
        """As `Gallery.explain`."""
        self._check_any()
        return self._gallery.explain(query, name, self.caller.cameras)

    def tracklet(self, name: str) -> list[Hit]:
        """As `Gallery.tracklet`."""
        return self._gallery.tracklet(name, self.caller.cameras)

    def summary(self) -> Summary | None:
        """As `Gallery.summary`; None too where only other cameras have images."""
        return self._gallery.summary(self.caller.cameras) if self._gallery.count(self.caller.cameras) else None

    def _check_any(self) -> None:
        if not self._gallery.count(self.caller.cameras):  # nothing tells whether other cameras have images
            raise RequestError(404, "empty", "the gallery is empty; add pictures first")


@final
class Guard:
    """Before a route: who asks, and whether their role may. What the route gets is a view of what there is for them."""

    def __init__(self, role: Role, searches: bool = False) -> None:
        self.role, self._searches = role, searches

    async def __call__(self, request: Request) -> View:
        service: Service = request.app.state.service
        caller = await service.gate.caller(request)
        if request.method not in _READING and not caller.by_header and HEADER not in request.headers:
            raise RequestError(403, "header", "a request that changes something needs the header X-Tbps: 1, or a key as Bearer")
        if caller.role.level < self.role.level:
            asked = {"asked": request.url.path[:200], "needs": self.role}
            await service.writing(service.audit.write, caller.name, caller.id, "refused", **asked)
            raise RequestError(403, "role", f"this needs the role {self.role}; yours is {caller.role}")
        if self._searches and not caller.open and (wait := service.gate.rates.wait(caller.id)):
            if not service.gate.told.wait(caller.id):  # once a minute; a line for each would be what the rate is there against
                told = {"asked": request.url.path, "ended": "refused", "code": "rate"}
                await service.writing(service.audit.write, caller.name, caller.id, "refused", **told)
            raise RequestError(429, "rate", "more searches in a minute than this key may make; wait a moment", _whole(wait))
        request.scope[KNOWN] = True
        if (mine := ticket.get()) is not None:
            mine.key, mine.privileged = caller.id, caller.role is Role.administrator
        return View(caller, service.gallery)


@final
class Gate:
    """Tells callers by their keys and sessions; slows down who tries keys."""

    def __init__(self, service: "Service") -> None:
        settings = service.settings
        self._service = service
        self._may_be_open = settings.on_loopback and not settings.allow_hosts and not service.keys.all()
        self.sessions = Sessions(service.keys, settings.session_hours)
        self.cookie = cookie_name(service.state)
        self.rates = Rates(settings.searches_per_minute or 1_000_000_000)
        self.told = Rates(1)
        self._failures = Rates(settings.failures_per_minute)
        self._all_failures = Rates(_ALL_ADDRESSES * settings.failures_per_minute)

    def is_open(self) -> bool:
        """Whether everybody is administrator: until the first key is made, and then never again."""
        self._may_be_open = self._may_be_open and not self._service.keys.all()
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
        key = self._service.keys.find(secret)
        if key is not None:
            return key
        address = request.client.host if request.client else "?"
        if wait := self._failures.wait(group_of(address)) or self._all_failures.wait(""):
            raise RequestError(429, "rate", "too many wrong keys; wait a moment", _whole(wait))
        await self._service.writing(self._service.audit.write, "?", "", "refused key", address=address)
        raise RequestError(401, "key", "there is no such key; the service's keeper lists them with: tbps keys list")


def called(key: Key, by_header: bool = False) -> Caller:
    """The caller that a key's holder is."""
    return Caller(key.id, key.name, key.role, key.cameras, by_header=by_header)


def _whole(seconds: float) -> int:
    return int(seconds) + 1
