"""What can be asked over HTTP; every route that shows or changes anything of the gallery has a `Guard`."""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from fastapi import Path as InPath
from PIL import Image
from pydantic import BaseModel

from tbps.errors import RequestError, SettingsError
from tbps.gallery import Footage, FootageSettings, as_name, calibration_of, canonical_name, written
from tbps.preprocess.metadata import parse_columns, parse_time
from tbps.server import bodies
from tbps.server.asked import CAMERA_LENGTH, ID_LENGTH, MOST_HITS, TIME_LENGTH, Example, ExplainAsked, ForgetAsked, Query
from tbps.server.bodies import Body, content_of, is_json
from tbps.server.callers import Caller
from tbps.server.forms import Form, FormLimits, Upload, read_form
from tbps.server.guard import Guard, View
from tbps.server.job_records import Job
from tbps.server.jobs import Order
from tbps.server.keys import Role
from tbps.server.recorded import Entry
from tbps.server.schemas import (
    DetailAnswer,
    ErrorAnswer,
    ExplainAnswer,
    ForgetAnswer,
    GalleryAnswer,
    JobAnswer,
    JobsAnswer,
    JobTaken,
    LimitsAnswer,
    SearchAnswer,
    detail_answer,
    job_answer,
    search_answer,
    summary_parts,
)
from tbps.server.service import Service
from tbps.server.strict_json import parse
from tbps.server.uploads import refusal

MOST_PICTURES = 4
_METADATA_VALUES = 1000
_SENT_SHOWN = 500
_Model = TypeVar("_Model", bound=BaseModel)
_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer} for status in (400, 401, 403, 404, 408, 413, 415, 422, 429, 503)
}

router = APIRouter(prefix="/v1", responses=_REFUSED)

Viewer = Annotated[View, Depends(Guard(Role.viewer))]
Searcher = Annotated[View, Depends(Guard(Role.viewer, searches=True))]
Curator = Annotated[View, Depends(Guard(Role.curator))]
Administrator = Annotated[View, Depends(Guard(Role.administrator))]


ImageId = Annotated[str, InPath(max_length=ID_LENGTH)]
JobId = Annotated[str, InPath(max_length=ID_LENGTH)]


@router.post("/search", response_model=SearchAnswer, openapi_extra=bodies.SEARCH.described())
async def search(view: Searcher, request: Request) -> Response:
    """The images that fit descriptions, images of the gallery, marks and conditions, best first."""
    service: Service = request.app.state.service
    async with service.recorded(view.caller, "search") as entry:
        query = await _read(request, bodies.SEARCH, entry)
        return await service.work(_find, service, view, entry, query)


_PICTURES = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MOST_PICTURES},
        "query": {"type": "string", "description": "JSON of a Query"},
    },
}


@router.post(
    "/similar",
    response_model=SearchAnswer,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                **bodies.SIMILAR.described()["requestBody"]["content"],
                "multipart/form-data": {"schema": _PICTURES},
            },
        }
    },
)
async def similar(view: Searcher, request: Request) -> Response:
    """The images most like pictures that are sent, or like one of the gallery by its id, together with a query."""
    service: Service = request.app.state.service
    async with service.recorded(view.caller, "similar") as entry:
        if is_json(request):
            asked = await _read(request, bodies.SIMILAR, entry)
            alike = asked.query.model_copy(update={"like": (*asked.query.like, Example(id=asked.id))})
            return await service.work(_find, service, view, entry, alike)
        query, pictures, digests = await _read_pictures(request, service, entry)
        return await service.work(_find, service, view, entry, query, pictures, digests)


@router.post("/feedback", response_model=SearchAnswer, openapi_extra=bodies.FEEDBACK.described())
async def feedback(view: Searcher, request: Request) -> Response:
    """The answer to a query again, closer to what was marked as right and away from what was marked as wrong."""
    service: Service = request.app.state.service
    async with service.recorded(view.caller, "feedback") as entry:
        asked = await _read(request, bodies.FEEDBACK, entry)
        marks = dict.fromkeys(asked.query.right, True) | dict.fromkeys(asked.query.wrong, False)
        marks |= dict.fromkeys(asked.wrong, False) | dict.fromkeys(asked.right, True)
        right, wrong = (tuple(name for name, is_right in marks.items() if is_right is kind) for kind in (True, False))
        marked = asked.query.model_copy(update={"right": right, "wrong": wrong, "offset": 0, "version": None})
        return await service.work(_find, service, view, entry, marked)


@router.post("/explain", response_model=ExplainAnswer, openapi_extra=bodies.EXPLAIN.described())
async def explain(view: Searcher, request: Request) -> Response:
    """Which words of a query and which regions of an image carried its score."""
    service: Service = request.app.state.service
    async with service.recorded(view.caller, "explain") as entry:
        asked = await _read(request, bodies.EXPLAIN, entry)
        return await service.work(_explain, view, entry, asked)


@router.get("/images/{id}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def image(id: ImageId, view: Viewer, request: Request) -> Response:
    """The crop of an image."""
    service: Service = request.app.state.service
    content = await service.work(_image, service, view, id)
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, no-store"})


@router.get("/images/{id}/detail", response_model=DetailAnswer)
async def detail(id: ImageId, view: Viewer, request: Request) -> Response:
    """What is known of an image, and the others of its tracklet."""
    service: Service = request.app.state.service
    return await service.work(_detail, service, view, id)


@router.get("/gallery", response_model=GalleryAnswer)
async def gallery(view: Viewer, request: Request) -> Response:
    """What there is to search, and the limits of the service."""
    service: Service = request.app.state.service
    return await service.work(_gallery, service, view)


@router.post(
    "/index",
    status_code=202,
    response_model=JobTaken,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["files"],
                        "properties": {
                            "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                            "camera": {"type": "string", "maxLength": CAMERA_LENGTH},
                            "start": {
                                "type": "string",
                                "maxLength": TIME_LENGTH,
                                "description": "when a video began, ISO 8601",
                            },
                            "detect": {"type": "string", "enum": ["true", "false"]},
                            "metadata": {"type": "string", "description": "JSON object: columns of everything that is sent"},
                        },
                    }
                }
            },
        }
    },
)
async def index(view: Curator, request: Request) -> Response:
    """Takes pictures, archives of pictures and videos, to be indexed one upload after another."""
    service: Service = request.app.state.service
    settings = service.settings
    limits = FormLimits("files", settings.upload_files, settings.upload_bytes, settings.upload_bytes)
    with service.arriving(view.caller):
        folder = await service.work(service.jobs.folder)
        try:
            form = await read_form(request, limits, folder, service.work)
            order = await service.work(_order, service, view, form, folder)
            job = await service.work(_take, service, view, order)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return _rendered(JobTaken(job=job_answer(job)), 202)


@router.get("/index", response_model=JobsAnswer)
async def jobs(view: Curator, request: Request) -> Response:
    """The uploads of the caller, newest first; of everybody where no cameras bound the caller."""
    service: Service = request.app.state.service
    return await service.work(_jobs, service, view.caller)


@router.get("/index/{job}", response_model=JobAnswer)
async def job(job: JobId, view: Curator, request: Request) -> Response:
    """What became of an upload so far."""
    service: Service = request.app.state.service
    return await service.work(_job, service, view.caller, job)


@router.delete("/index/{job}", response_model=JobAnswer)
async def cancel(job: JobId, view: Curator, request: Request) -> Response:
    """Asks an upload's indexing to end; what was added so far stays."""
    service: Service = request.app.state.service
    return await service.work(_cancel, service, view.caller, job)


@router.post("/forget", response_model=ForgetAnswer, openapi_extra=bodies.FORGET.described())
async def forget(view: Administrator, request: Request) -> Response:
    """Erases images from disk: rows, thumbnails, old versions, snapshots."""
    service: Service = request.app.state.service
    async with service.recorded(view.caller, "forget") as entry:
        asked = await _read(request, bodies.FORGET)
        return await service.work(_forget, service, view, entry, asked)


async def _read(request: Request, body: Body[_Model], entry: Entry | None = None) -> _Model:
    """The body of a request, validated in a thread; what of it can be told goes to the entry first. Raises RequestError."""
    service: Service = request.app.state.service
    content = await content_of(request, min(body.most_bytes, service.settings.body_bytes))
    if entry is not None:
        entry.asked = _unread(content)
    return await service.work(body.read, content)


async def _read_pictures(request: Request, service: Service, entry: Entry) -> tuple[Query, list[Image.Image], list[str]]:
    """The query and the pictures of a form, with their digests. Raises RequestError, ImageError."""
    most = MOST_PICTURES * service.settings.picture_bytes + bodies.SEARCH.most_bytes
    limits = FormLimits("image", MOST_PICTURES, service.settings.picture_bytes, most)
    folder = await service.work(service.jobs.asked_folder)
    try:
        form = await read_form(request, limits, folder, service.work)
        content = form.fields.get("query", "{}").encode()
        entry.asked = _unread(content)
        if not form.files:
            raise RequestError(400, "form", "send at least one picture as 'image'")
        query = await service.work(bodies.SEARCH.read, content)
        pictures, digests = await service.work(_pictures, service, form.files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return query, pictures, digests


def _rendered(answer: BaseModel, status: int = 200) -> Response:
    """An answer as JSON: made in the thread that worked on it, since a large one takes its time."""
    return Response(answer.model_dump_json(), status, media_type="application/json")


def _find(
    service: Service,
    view: View,
    entry: Entry,
    query: Query,
    pictures: Sequence[Image.Image] = (),
    digests: Sequence[str] = (),
) -> Response:
    """Searches, and tells the audit log what was asked and what is shown before it is."""
    entry.asked = {"asked": _asked(query)} | ({"pictures": list(digests)} if digests else {})
    began = time.perf_counter()
    page = view.find(query, pictures)
    answer = _rendered(search_answer(query, page, time.perf_counter() - began))
    ids = [hit.id for hit in page.hits]
    entry.answered(shown=ids, total=page.total)
    service.shown.add(view.caller, ids)
    return answer


def _asked(query: Query) -> Mapping[str, Any]:
    """A query for the audit log: fields that differ from their defaults."""
    return query.model_dump(mode="json", exclude_defaults=True)


def _unread(content: bytes) -> dict[str, Any]:
    """For the audit log, of a body that nobody has read yet: its size and how it begins."""
    return {"bytes": len(content), "sent": content[:_SENT_SHOWN].decode("utf-8", "backslashreplace")}


def _pictures(service: Service, files: Sequence[Upload]) -> tuple[list[Image.Image], list[str]]:
    """Sent pictures as the model sees them, and a digest of each."""
    pictures, digests = [], []
    for upload in files:
        content = upload.file.read_bytes()
        digests.append(hashlib.sha256(content).hexdigest())
        pictures.append(service.asked_pictures.fitted(content, service.model.spec))
    return pictures, digests


def _image(service: Service, view: View, name: str) -> bytes:
    hit = view.image(name)
    if not service.shown.holds(view.caller, hit.id):
        service.record(view.caller, "image", shown=[hit.id])
        service.shown.add(view.caller, [hit.id])
    return hit.thumbnail if service.blur is None else service.blur(hit.thumbnail)


def _explain(view: View, entry: Entry, asked: ExplainAsked) -> Response:
    entry.asked = {"asked": _asked(asked.query), "of": asked.id}
    answer = _rendered(ExplainAnswer.model_validate(view.explain(asked.query, asked.id).as_dict()))
    entry.answered(shown=[asked.id])
    return answer


def _detail(service: Service, view: View, name: str) -> Response:
    hit = view.image(name)
    tracklet = hit.attributes.get("tracklet")
    members = [] if tracklet is None else view.tracklet(str(tracklet))
    ids = [hit.id, *(each.id for each in members if each.id != hit.id)]
    answer = _rendered(detail_answer(hit, members))
    service.record(view.caller, "detail", shown=ids)
    service.shown.add(view.caller, ids)
    return answer


def _gallery(service: Service, view: View) -> Response:
    settings = service.settings
    return _rendered(
        GalleryAnswer(
            **summary_parts(view.summary()),
            model=service.model.name.rstrip("/").rpartition("/")[2],
            calibrated=calibration_of(service.model) is not None,
            blurred=service.blur is not None,
            limits=LimitsAnswer(
                upload_bytes=settings.upload_bytes,
                upload_files=settings.upload_files,
                picture_bytes=settings.picture_bytes,
                pixels=settings.pixels,
                hits=MOST_HITS,
            ),
        )
    )


def _jobs(service: Service, caller: Caller) -> Response:
    return _rendered(JobsAnswer(jobs=[job_answer(job) for job in service.jobs.of(caller)]))


def _job(service: Service, caller: Caller, name: str) -> Response:
    return _rendered(job_answer(service.jobs.one(caller, name)))


def _cancel(service: Service, caller: Caller, name: str) -> Response:
    service.jobs.one(caller, name)
    service.record(caller, "cancel", job=name)
    return _rendered(job_answer(service.jobs.cancel(caller, name)))


def _order(service: Service, view: View, form: Form, folder: Path) -> Order:
    """What a form asks for. Raises RequestError, also where none of its files is allowed, AnnotationError and SettingsError."""
    unknown = sorted(form.fields.keys() - {"camera", "start", "detect", "metadata"})
    if unknown:
        raise RequestError(400, "form", f"unknown field {unknown[0][:50]!r}; there are: camera, start, detect, metadata")
    if not form.files:
        raise RequestError(400, "form", "send at least one file as 'files'")
    columns = _columns(form.fields.get("metadata") or "{}")
    camera, start = form.fields.get("camera") or None, form.fields.get("start") or None
    for name, text, most in (("camera", camera, CAMERA_LENGTH), ("start", start, TIME_LENGTH)):
        if text is not None and len(text) > most:
            raise RequestError(400, "form", f"field {name!r} has {len(text):,} characters, more than {most:,}; shorten it")
    if (detect := form.fields.get("detect", "false").lower()) not in ("true", "false"):
        raise RequestError(400, "form", f"field 'detect' is {detect[:50]!r}; send true or false")
    if start is not None and parse_time(start) is None:
        raise SettingsError(f"start {start[:50]!r} is no ISO 8601 time such as 2024-05-01T08:30:00")
    cameras = view.caller.cameras
    if cameras is not None and as_name(columns.get("camera") or camera) not in {canonical_name(name) for name in cameras}:
        raise RequestError(403, "camera", f"say of which of your cameras the pictures are: camera = {', '.join(cameras)}")
    if (reason := refusal([upload.file for upload in form.files])) is not None:
        raise RequestError(415, "format", reason)
    looks = FootageSettings(photographs=detect == "true")
    began = None if start is None else parse_time(start)
    footage = Footage(looks, camera=camera, start=began, within=cameras)
    return Order(view.caller, folder, form.files, columns, footage, service.sent_pictures)


def _columns(metadata: str) -> dict[str, Any]:
    """The columns that a form gives to everything in it. Raises RequestError (400), AnnotationError."""
    content = metadata.encode()
    try:
        parse(content, "metadata", _METADATA_VALUES)
    except RequestError as error:
        raise RequestError(400, "form", str(error)) from error
    return parse_columns(content, "metadata")


def _take(service: Service, view: View, order: Order) -> Job:
    sizes = [upload.size for upload in order.files]
    service.record(view.caller, "upload", files=len(sizes), bytes=sum(sizes), camera=order.footage.camera)
    return service.jobs.submit(order)


def _forget(service: Service, view: View, entry: Entry, asked: ForgetAsked) -> Response:
    """The log tells that and how much was erased, not whose images: by a name or a condition somebody could still be found."""
    by = [name for name in ("ids", "identity", "where", "before") if getattr(asked, name) not in (None, [])]
    entry.asked = {"by": by, "ids": asked.ids, "dry_run": asked.dry_run}
    if asked.where is not None:
        written(asked.where)
    entry.answered()
    report = service.gallery.forget(asked.where, asked.identity, asked.before, asked.ids, asked.dry_run)
    if not asked.dry_run:
        if service.blur is not None:
            service.blur.forget()
        service.audit.write(view.caller.name, view.caller.id, "forgotten", by=by, images=report.images)
    return _rendered(
        ForgetAnswer(
            images=report.images,
            gallery=report.gallery,
            snapshots=dict(report.snapshots),
            undated=report.undated,
            dry_run=report.dry_run,
            seconds=report.seconds,
        )
    )
