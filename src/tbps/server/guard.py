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
from tbps.gallery import Explanation, Gallery, Hit, Page, Picture, Query, Summary
from tbps.server.callers import Caller
from tbps.server.keys import Role
from tbps.server.limits import ticket, whole_seconds

if TYPE_CHECKING:
    from tbps.server.service import Service

HEADER = "x-tbps"
KNOWN = "tbps.known"  # in the scope of a request whose caller is known
_READING = ("GET", "HEAD")


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
            raise RequestError(429, "rate", "more searches in a minute than this key may make; wait a moment", whole_seconds(wait))
        request.scope[KNOWN] = True
        if (mine := ticket.get()) is not None:
            mine.key, mine.privileged = caller.id, caller.role is Role.administrator
        return View(caller, service.gallery)
