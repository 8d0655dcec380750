"""Authorization: the dependency that protects every route that shows or changes the gallery, and the view that it returns.

A key is sent as `Authorization: Bearer KEY` or, by a browser, as a session cookie. Other schemes of that header, such as Basic, are
meant for a proxy in front of the service and are ignored. If no key was ever created and only this machine can reach the service,
every caller is administrator ("open").

Cross-site requests: a page of another site can make a browser send requests here, but cannot read the answers. Requests that change
something need the header X-Tbps, which other sites cannot set, or a key in a header. Against DNS rebinding, the Host header must
contain one of the names of the service (see `callers.addresses`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from fastapi import Request

from tbps.errors import RequestError
from tbps.gallery import Explanation, Gallery, Hit, Page, Picture, Query, Summary
from tbps.server.callers.gate import Caller
from tbps.server.callers.keys import Role
from tbps.server.callers.limits import ticket, whole_seconds

if TYPE_CHECKING:
    from tbps.server.service import Service

HEADER = "x-tbps"
IDENTIFIED = "tbps.identified"  # key that is set in the ASGI scope when the caller has been identified
_READING = ("GET", "HEAD")


@final
@dataclass(frozen=True, slots=True)
class View:
    """The part of the gallery that a caller may see.

    Routes receive a view instead of the gallery, so that no route can omit the restriction to the caller's cameras.
    """

    caller: Caller
    _gallery: Gallery

    def find(self, query: Query, pictures: Sequence[Picture] = ()) -> Page:
        """As `Gallery.find`, without thumbnails, which callers request one by one."""
        self._check_any()
        return self._gallery.find(query, pictures, self.caller.cameras, thumbnails=False)

    def image(self, id: str) -> Hit:
        """As `Gallery.image`."""
        self._check_any()
        return self._gallery.image(id, self.caller.cameras)

    def explain(self, query: Query, id: str) -> Explanation:
        """As `Gallery.explain`."""
        self._check_any()
        return self._gallery.explain(query, id, self.caller.cameras)

    def tracklet(self, name: str) -> list[Hit]:
        """As `Gallery.tracklet`."""
        return self._gallery.tracklet(name, self.caller.cameras)

    def summary(self) -> Summary | None:
        """As `Gallery.summary`; None if no camera of the caller has images."""
        return self._gallery.summary(self.caller.cameras) if self._gallery.count(self.caller.cameras) else None

    def _check_any(self) -> None:
        if not self._gallery.count(self.caller.cameras):  # the answer must not depend on images of other cameras
            raise RequestError(404, "empty", "the gallery is empty; add pictures first")


@final
class Guard:
    """FastAPI dependency that identifies the caller, checks the role and returns the caller's view of the gallery.

    searches: whether requests count towards the rate limit on searches.
    """

    def __init__(self, role: Role, searches: bool = False) -> None:
        self.role, self._searches = role, searches

    async def __call__(self, request: Request) -> View:
        service: Service = request.app.state.service
        caller = await service.gate.caller(request)
        if request.method not in _READING and not caller.by_header and HEADER not in request.headers:
            raise RequestError(403, "header", "a request that changes something needs the header X-Tbps: 1, or a key as Bearer")
        if caller.role.level < self.role.level:
            facts = {"asked": request.url.path[:200], "needs": self.role}
            await service.writing(service.audit.write, caller.name, caller.id, "refused", **facts)
            raise RequestError(403, "role", f"this needs the role {self.role}; yours is {caller.role}")
        if self._searches and not caller.open and (wait := service.gate.rates.wait(caller.id)):
            if not service.gate.refusal_lines.wait(caller.id):  # a line per refused search would fill the log
                facts = {"asked": request.url.path, "ended": "refused", "code": "rate"}
                await service.writing(service.audit.write, caller.name, caller.id, "refused", **facts)
            raise RequestError(429, "rate", "too many searches with this key in a minute; wait a moment", whole_seconds(wait))
        request.scope[IDENTIFIED] = True
        if (mine := ticket.get()) is not None:
            mine.key, mine.privileged = caller.id, caller.role is Role.administrator
        return View(caller, service.gallery)
