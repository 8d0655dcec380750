"""Functions shared by the routes: role-based dependencies, reading of bodies, rendering of answers.

Routes get the service from the request. Closures over it would keep a stopped service and the embeddings of its gallery in memory,
since FastAPI caches information about route functions, including the functions themselves.
"""

from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request, Response
from fastapi import Path as InPath
from pydantic import BaseModel

from tbps.server.bodies.answers import ErrorAnswer
from tbps.server.bodies.reading import Body, content_of
from tbps.server.bodies.requests import ID_LENGTH
from tbps.server.callers.keys import Role
from tbps.server.guard import Guard, View
from tbps.server.recorded import Entry
from tbps.server.service import Service

_SENT_SHOWN = 500
_Model = TypeVar("_Model", bound=BaseModel)

REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer} for status in (400, 401, 403, 404, 408, 413, 415, 422, 429, 503)
}

Viewer = Annotated[View, Depends(Guard(Role.viewer))]
Searcher = Annotated[View, Depends(Guard(Role.viewer, searches=True))]
Curator = Annotated[View, Depends(Guard(Role.curator))]
Administrator = Annotated[View, Depends(Guard(Role.administrator))]
Id = Annotated[str, InPath(max_length=ID_LENGTH)]


def service_of(request: Request) -> Service:
    """The service that a request was sent to."""
    service: Service = request.app.state.service
    return service


async def read_body(request: Request, body: Body[_Model], entry: Entry | None = None) -> _Model:
    """Read the JSON body of a request and validate it in a thread. Raises RequestError.

    entry: audit entry, in which the beginning of the body is recorded before validation.
    """
    service = service_of(request)
    content = await content_of(request, min(body.most_bytes, service.settings.body_bytes))
    if entry is not None:
        entry.asked = unvalidated(content)
    return await service.work(body.read, content)


def rendered(answer: BaseModel, status: int = 200) -> Response:
    """Render an answer as JSON. Call it in the worker thread, since rendering a large answer takes time."""
    return Response(answer.model_dump_json(), status, media_type="application/json")


def unvalidated(content: bytes) -> dict[str, Any]:
    """Size and beginning of a body that was not validated, for the audit log."""
    return {"bytes": len(content), "sent": content[:_SENT_SHOWN].decode("utf-8", "backslashreplace")}
