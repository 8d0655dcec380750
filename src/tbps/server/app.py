"""The application: routes of the API, sessions, health, metrics and the page."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tbps import __version__
from tbps.errors import RequestError, TbpsError
from tbps.server.answers import answer_of, error_answer
from tbps.server.bodies import SIGN_IN, content_of, schemas
from tbps.server.callers import OPEN_NAME, Caller, called
from tbps.server.guard import HEADER, Guard, View
from tbps.server.keys import Role
from tbps.server.outside import Outside
from tbps.server.routes import router
from tbps.server.schemas import ErrorAnswer, HealthAnswer, SessionAnswer
from tbps.server.service import Service

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer} for status in (401, 403, 404, 408, 413, 415, 422, 429, 503)
}


def make_app(service: Service) -> FastAPI:
    """The application of a service, which begins and ends with it."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.stop)

    app = FastAPI(
        title="tbps",
        version=__version__,
        description="Find people in a gallery of images by description, picture or what was found before.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=life,
    )
    app.state.service = service
    app.add_middleware(Outside, service=service)
    _answer_errors(app)
    _add_session(app, service)
    _add_health(app, service)
    _add_page(app)
    app.include_router(router)
    _describe(app, service)
    return app


def _describe(app: FastAPI, service: Service) -> None:
    """Adds the schemas of bodies, which the routes read themselves, and limits that are settings to the OpenAPI description."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = plain()
            made["components"]["schemas"] |= schemas()
            form = made["paths"]["/v1/index"]["post"]["requestBody"]["content"]["multipart/form-data"]
            form["schema"]["properties"]["files"]["maxItems"] = service.settings.upload_files
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _answer_errors(app: FastAPI) -> None:
    async def on_purpose(request: Request, error: Exception) -> Response:
        assert isinstance(error, TbpsError)
        return answer_of(error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return error_answer(422, "request", f"{first['loc'][-1]}: {first['msg']}")

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = error_answer(error.status_code, "http", f"{error.detail}")
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(TbpsError, on_purpose)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _add_session(app: FastAPI, service: Service) -> None:
    async def read(request: Request) -> SessionAnswer:
        """Who is signed in."""
        return _session(await service.gate.caller(request))

    async def begin(request: Request, response: Response) -> SessionAnswer:
        """Begins a session with a key; its cookie lasts as long as the browser and the service run, some hours at most."""
        asked = SIGN_IN.read(await content_of(request, SIGN_IN.most_bytes))
        if service.gate.is_open():
            return _session(Caller("", OPEN_NAME, Role.administrator, open=True))
        key = await service.gate.checked(request, asked.key)
        await service.writing(service.audit.write, key.name, key.id, "signed in")
        token = service.gate.sessions.begin(key)
        is_secure = request.url.scheme == "https" or request.headers.get("origin", "").lower().startswith("https://")
        response.set_cookie(service.gate.cookie, token, httponly=True, samesite="strict", path="/", secure=is_secure)
        return _session(called(key))

    async def end(request: Request, response: Response) -> dict[str, bool]:
        """Ends the session."""
        if HEADER not in request.headers:
            raise RequestError(403, "header", "a request that changes something needs the header X-Tbps: 1")
        if (token := request.cookies.get(service.gate.cookie)) is not None:
            service.gate.sessions.end(token)
        response.delete_cookie(service.gate.cookie, path="/", httponly=True, samesite="strict")
        return {"signed_out": True}

    app.add_api_route("/v1/session", read, methods=["GET"], responses=_REFUSED)
    app.add_api_route("/v1/session", begin, methods=["POST"], responses=_REFUSED, openapi_extra=SIGN_IN.described())
    app.add_api_route("/v1/session", end, methods=["DELETE"], responses=_REFUSED)


def _session(caller: Caller) -> SessionAnswer:
    cameras = None if caller.cameras is None else list(caller.cameras)
    return SessionAnswer(name=caller.name, role=caller.role, cameras=cameras, open=caller.open)


def _add_health(app: FastAPI, service: Service) -> None:
    async def health() -> HealthAnswer:
        """Whether searches are as quick as they will be."""
        return HealthAnswer(status="ready" if service.ready.is_set() else "warming")

    async def metrics(view: Annotated[View, Depends(Guard(Role.administrator))]) -> Response:
        """Counters for Prometheus."""
        service.metrics.images.set(await service.work(len, service.gallery))
        service.metrics.jobs.set(service.jobs.unfinished())
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    app.add_api_route("/healthz", health, methods=["GET"])
    app.add_api_route("/metrics", metrics, methods=["GET"], responses=_REFUSED, response_class=Response)


def _add_page(app: FastAPI) -> None:
    """The page's files, read once: what is asked for is a name in a dictionary, no path."""
    folder = files("tbps.server") / "page"
    kept = {each.name: each.read_bytes() for each in folder.iterdir() if each.name.endswith(tuple(_TYPES))}

    async def front() -> Response:
        return _file("index.html")

    async def file(name: str) -> Response:
        return _file(name)

    def _file(name: str) -> Response:
        if name not in kept:
            raise RequestError(404, "not_found", "there is no such page")
        kind = next(kind for end, kind in _TYPES.items() if name.endswith(end))
        return Response(kept[name], media_type=kind, headers={"Cache-Control": "no-cache"})

    app.add_api_route("/", front, methods=["GET"], include_in_schema=False)
    app.add_api_route("/page/{name}", file, methods=["GET"], include_in_schema=False)
