"""Search routes: by description, by picture, with marks; and explanations of hits."""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from PIL import Image

from tbps.errors import RequestError
from tbps.server.bodies import reading
from tbps.server.bodies.answers import ExplainAnswer, SearchAnswer, search_answer
from tbps.server.bodies.reading import is_json
from tbps.server.bodies.requests import Example, ExplainAsked, Query
from tbps.server.guard import View
from tbps.server.recorded import Entry
from tbps.server.routes.access import REFUSED, Searcher, read_body, rendered, service_of, unvalidated
from tbps.server.service import Service
from tbps.server.uploads.forms import FormLimits, Upload, read_form

MOST_PICTURES = 4
_PICTURES = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MOST_PICTURES},
        "query": {"type": "string", "description": "a Query as JSON"},
    },
}

router = APIRouter(prefix="/v1", responses=REFUSED)


@router.post("/search", response_model=SearchAnswer, openapi_extra=reading.SEARCH.described())
async def search(view: Searcher, request: Request) -> Response:
    """Search images by descriptions, example images, marks and filters; best first."""
    service = service_of(request)
    async with service.recorded(view.caller, "search") as entry:
        query = await read_body(request, reading.SEARCH, entry)
        return await service.work(_find, service, view, entry, query)


@router.post(
    "/similar",
    response_model=SearchAnswer,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                **reading.SIMILAR.described()["requestBody"]["content"],
                "multipart/form-data": {"schema": _PICTURES},
            },
        }
    },
)
async def similar(view: Searcher, request: Request) -> Response:
    """Search images that look like uploaded pictures or like an image of the gallery, optionally combined with a query."""
    service = service_of(request)
    async with service.recorded(view.caller, "similar") as entry:
        if is_json(request):
            asked = await read_body(request, reading.SIMILAR, entry)
            alike = asked.query.model_copy(update={"like": (*asked.query.like, Example(id=asked.id))})
            return await service.work(_find, service, view, entry, alike)
        query, pictures, digests = await _read_pictures(request, service, entry)
        return await service.work(_find, service, view, entry, query, pictures, digests)


@router.post("/feedback", response_model=SearchAnswer, openapi_extra=reading.FEEDBACK.described())
async def feedback(view: Searcher, request: Request) -> Response:
    """Repeat a search, closer to images marked as right and further from images marked as wrong."""
    service = service_of(request)
    async with service.recorded(view.caller, "feedback") as entry:
        asked = await read_body(request, reading.FEEDBACK, entry)
        marks = dict.fromkeys(asked.query.right, True) | dict.fromkeys(asked.query.wrong, False)
        marks |= dict.fromkeys(asked.wrong, False) | dict.fromkeys(asked.right, True)
        right, wrong = (tuple(id for id, is_right in marks.items() if is_right is kind) for kind in (True, False))
        marked = asked.query.model_copy(update={"right": right, "wrong": wrong, "offset": 0, "version": None})
        return await service.work(_find, service, view, entry, marked)


@router.post("/explain", response_model=ExplainAnswer, openapi_extra=reading.EXPLAIN.described())
async def explain(view: Searcher, request: Request) -> Response:
    """Show which words of a query and which regions of an image contributed to its score."""
    service = service_of(request)
    async with service.recorded(view.caller, "explain") as entry:
        asked = await read_body(request, reading.EXPLAIN, entry)
        return await service.work(_explain, view, entry, asked)


async def _read_pictures(request: Request, service: Service, entry: Entry) -> tuple[Query, list[Image.Image], list[str]]:
    """Read the query and the pictures of a form, and compute the SHA-256 of each picture. Raises RequestError, ImageError."""
    most = MOST_PICTURES * service.settings.picture_bytes + reading.SEARCH.most_bytes
    limits = FormLimits("image", MOST_PICTURES, service.settings.picture_bytes, most)
    folder = await service.work(service.jobs.asked_folder)
    try:
        form = await read_form(request, limits, folder, service.work)
        content = form.fields.get("query", "{}").encode()
        entry.asked = unvalidated(content)
        if not form.files:
            raise RequestError(400, "form", "send at least one picture as 'image'")
        query = await service.work(reading.SEARCH.read, content)
        pictures, digests = await service.work(_pictures, service, form.files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return query, pictures, digests


def _pictures(service: Service, files: Sequence[Upload]) -> tuple[list[Image.Image], list[str]]:
    """Decode pictures to the input size of the model, and compute the SHA-256 of each file."""
    pictures, digests = [], []
    for upload in files:
        content = upload.file.read_bytes()
        digests.append(hashlib.sha256(content).hexdigest())
        pictures.append(service.asked_pictures.fitted(content, service.model.spec))
    return pictures, digests


def _find(
    service: Service,
    view: View,
    entry: Entry,
    query: Query,
    pictures: Sequence[Image.Image] = (),
    digests: Sequence[str] = (),
) -> Response:
    """Search, and write query and hits to the audit log before the answer is sent."""
    entry.asked = {"asked": _changed_fields(query)} | ({"pictures": list(digests)} if digests else {})
    began = time.perf_counter()
    page = view.find(query, pictures)
    answer = rendered(search_answer(query, page, time.perf_counter() - began))
    ids = [hit.id for hit in page.hits]
    entry.answered(shown=ids, total=page.total)
    service.shown.add(view.caller, ids)
    return answer


def _explain(view: View, entry: Entry, asked: ExplainAsked) -> Response:
    entry.asked = {"asked": _changed_fields(asked.query), "of": asked.id}
    answer = rendered(ExplainAnswer.model_validate(view.explain(asked.query, asked.id).as_dict()))
    entry.answered(shown=[asked.id])
    return answer


def _changed_fields(query: Query) -> Mapping[str, Any]:
    """Fields of a query that differ from their defaults, for the audit log."""
    return query.model_dump(mode="json", exclude_defaults=True)
