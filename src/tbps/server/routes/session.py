"""Routes for the session of a browser: current caller, signing in, signing out."""

from fastapi import APIRouter, Request, Response

from tbps.errors import RequestError
from tbps.server.bodies.answers import SessionAnswer
from tbps.server.bodies.reading import SIGN_IN, content_of
from tbps.server.callers.gate import OPEN_NAME, Caller, caller_with
from tbps.server.callers.keys import Role
from tbps.server.guard import HEADER
from tbps.server.routes.access import REFUSED, service_of

router = APIRouter(prefix="/v1", responses=REFUSED)


@router.get("/session")
async def read(request: Request) -> SessionAnswer:
    """Get the name, role and cameras of the caller."""
    return _session(await service_of(request).gate.caller(request))


@router.post("/session", openapi_extra=SIGN_IN.described())
async def begin(request: Request, response: Response) -> SessionAnswer:
    """Sign in with a key. The session ends with the browser, with the service, or after some hours."""
    service = service_of(request)
    asked = SIGN_IN.read(await content_of(request, SIGN_IN.most_bytes))
    if service.gate.is_open():
        return _session(Caller("", OPEN_NAME, Role.administrator, open=True))
    key = await service.gate.checked(request, asked.key)
    await service.writing(service.audit.write, key.name, key.id, "signed in")
    token = service.gate.sessions.begin(key)
    is_secure = request.url.scheme == "https" or request.headers.get("origin", "").lower().startswith("https://")
    response.set_cookie(service.gate.cookie, token, httponly=True, samesite="strict", path="/", secure=is_secure)
    return _session(caller_with(key))


@router.delete("/session")
async def end(request: Request, response: Response) -> dict[str, bool]:
    """Sign out."""
    service = service_of(request)
    if HEADER not in request.headers:
        raise RequestError(403, "header", "a request that changes something needs the header X-Tbps: 1")
    if (token := request.cookies.get(service.gate.cookie)) is not None:
        service.gate.sessions.end(token)
    response.delete_cookie(service.gate.cookie, path="/", httponly=True, samesite="strict")
    return {"signed_out": True}


def _session(caller: Caller) -> SessionAnswer:
    cameras = None if caller.cameras is None else list(caller.cameras)
    return SessionAnswer(name=caller.name, role=caller.role, cameras=cameras, open=caller.open)
