"""Routes of the browser page. Its files are read once into a dictionary, so that requests cannot address paths on disk."""

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Response

from tbps.errors import RequestError

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def front() -> Response:
    return _answer("index.html")


@router.get("/page/{name}")
async def file(name: str) -> Response:
    return _answer(name)


@cache
def _files() -> dict[str, bytes]:
    folder = files("tbps.server") / "page"
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.name.endswith(tuple(_TYPES))}


def _answer(name: str) -> Response:
    if name not in _files():
        raise RequestError(404, "not_found", "there is no such page")
    kind = next(kind for suffix, kind in _TYPES.items() if name.endswith(suffix))
    return Response(_files()[name], media_type=kind, headers={"Cache-Control": "no-cache"})
