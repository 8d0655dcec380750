"""The ASGI application of a service: routes, error answers, OpenAPI description."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tbps import __version__
from tbps.errors import TbpsError
from tbps.server.bodies.reading import schemas
from tbps.server.faults import answer_of, error_answer
from tbps.server.outside import Outside
from tbps.server.routes import images, indexing, operation, page, search, session
from tbps.server.service import Service


def make_app(service: Service) -> FastAPI:
    """Create the ASGI application of a service. Its lifespan starts and stops the service."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.stop)

    app = FastAPI(
        title="tbps",
        version=__version__,
        description="Search people in a gallery of images: by description, by example picture, and by marks on earlier results.",
        docs_url=None,  # these pages load scripts from other hosts
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=life,
    )
    app.state.service = service
    app.add_middleware(Outside, service=service)
    _answer_errors(app)
    for module in (session, operation, page, search, images, indexing):
        app.include_router(module.router)
    _describe(app, service.settings.upload_files)
    return app


def _describe(app: FastAPI, upload_files: int) -> None:
    """Add schemas of request bodies, and limits from the settings, to the OpenAPI description that FastAPI generates."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = deepcopy(plain())
            made["components"]["schemas"] |= schemas()
            form = made["paths"]["/v1/index"]["post"]["requestBody"]["content"]["multipart/form-data"]
            form["schema"]["properties"]["files"]["maxItems"] = upload_files
            app.openapi_schema = made
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # as FastAPI's documentation shows


def _answer_errors(app: FastAPI) -> None:
    async def expected(request: Request, error: Exception) -> Response:
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

    app.add_exception_handler(TbpsError, expected)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
