"""What can be asked over HTTP; every route that shows or changes anything of the gallery has a `Guard`."""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from PIL import Image
from pydantic import ValidationError

from tbps.errors import QueryError, RequestError, SettingsError
from tbps.preprocess.metadata import parse_columns
from tbps.search.calibration import calibration_of
from tbps.search.columns import parse_time
from tbps.search.filters import written
from tbps.search.footage import Footage, FootageSettings
from tbps.search.query import Example, Query
from tbps.server.forms import Form, FormLimits, Upload, read_form
from tbps.server.job_records import Job
from tbps.server.jobs import Order
from tbps.server.keys import Role
from tbps.server.schemas import (
    DetailAnswer,
    ErrorAnswer,
    ExplainAnswer,
    ExplainAsked,
    FeedbackAsked,
    ForgetAnswer,
    ForgetAsked,
    GalleryAnswer,
    JobAnswer,
    JobsAnswer,
    JobTaken,
    LimitsAnswer,
    SearchAnswer,
    SimilarAsked,
    detail_answer,
    job_answer,
    search_answer,
    summary_parts,
)
from tbps.server.security import Guard, View
from tbps.server.service import Service
from tbps.server.uploads import refusal

MOST_HITS, MOST_OFFSET, MOST_TEXTS, MOST_IDS, MOST_RERANKED = 200, 10_000, 16, 200, 200
MOST_PICTURES = 4
_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer} for status in (400, 401, 403, 404, 413, 415, 422, 429, 503)
}

router = APIRouter(prefix="/v1", responses=_REFUSED)

Viewer = Annotated[View, Depends(Guard(Role.viewer))]
Searcher = Annotated[View, Depends(Guard(Role.viewer, searches=True))]
Curator = Annotated[View, Depends(Guard(Role.curator))]
Administrator = Annotated[View, Depends(Guard(Role.administrator))]


@router.post("/search")
async def search(asked: Query, view: Searcher, request: Request) -> SearchAnswer:
    """The images that fit descriptions, images of the gallery, marks and conditions, best first."""
    return await _find(request, view, "search", asked)


@router.post(
    "/similar",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/SimilarAsked"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["image"],
                        "properties": {
                            "image": {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": MOST_PICTURES},
                            "query": {"type": "string", "description": "JSON of a Query"},
                        },
                    }
                },
            },
        }
    },
)
async def similar(view: Searcher, request: Request) -> SearchAnswer:
    """The images most like pictures that are sent, or like one of the gallery by its id, together with a query."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        asked = _read(SimilarAsked, await request.body())
        alike = asked.query.model_copy(update={"like": (*asked.query.like, Example(id=asked.id))})
        return await _find(request, view, "similar", alike)
    service: Service = request.app.state.service
    settings = service.settings
    most = MOST_PICTURES * settings.picture_bytes + settings.body_bytes
    limits = FormLimits("image", MOST_PICTURES, settings.picture_bytes, most)
    folder = await service.work(service.jobs.asked_folder)
    try:
        form = await read_form(request, limits, folder, service.work)
        if not form.files:
            raise RequestError(400, "form", "send at least one picture as 'image'")
        query = _read(Query, form.fields.get("query", "{}").encode())
        pictures, digests = await service.work(_pictures, service, form.files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return await _find(request, view, "similar", query, pictures, digests)


@router.post("/feedback")
async def feedback(asked: FeedbackAsked, view: Searcher, request: Request) -> SearchAnswer:
    """The answer to a query again, closer to what was marked as right and away from what was marked as wrong."""
    marks = dict.fromkeys(asked.query.right, True) | dict.fromkeys(asked.query.wrong, False)
    marks |= dict.fromkeys(asked.wrong, False) | dict.fromkeys(asked.right, True)
    right, wrong = (tuple(name for name, is_right in marks.items() if is_right is kind) for kind in (True, False))
    marked = asked.query.model_copy(update={"right": right, "wrong": wrong, "offset": 0, "version": None})
    return await _find(request, view, "feedback", marked)


@router.post("/explain")
async def explain(asked: ExplainAsked, view: Searcher, request: Request) -> ExplainAnswer:
    """Which words of a query and which regions of an image carried its score."""
    _check_size(asked.query)
    service: Service = request.app.state.service
    return await service.work(_explain, service, view, asked)


@router.get("/images/{id}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def image(id: str, view: Viewer, request: Request) -> Response:
    """The crop of an image."""
    service: Service = request.app.state.service
    content = await service.work(_image, service, view, id)
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, no-store"})


@router.get("/images/{id}/detail")
async def detail(id: str, view: Viewer, request: Request) -> DetailAnswer:
    """What is known of an image, and the others of its tracklet."""
    service: Service = request.app.state.service
    return await service.work(_detail, service, view, id)


@router.get("/gallery")
async def gallery(view: Viewer, request: Request) -> GalleryAnswer:
    """What there is to search, and the limits of the service."""
    service: Service = request.app.state.service
    return await service.work(_gallery, service, view)


@router.post(
    "/index",
    status_code=202,
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
                            "camera": {"type": "string"},
                            "start": {"type": "string", "description": "when a video began, ISO 8601"},
                            "detect": {"type": "string", "enum": ["true", "false"]},
                            "metadata": {"type": "string", "description": "JSON object: columns of everything that is sent"},
                        },
                    }
                }
            },
        }
    },
)
async def index(view: Curator, request: Request) -> JobTaken:
    """Takes pictures, archives of pictures and videos, to be indexed one upload after another."""
    service: Service = request.app.state.service
    settings = service.settings
    limits = FormLimits("files", settings.upload_files, settings.upload_bytes, settings.upload_bytes)
    folder = await service.work(service.jobs.folder)
    try:
        form = await read_form(request, limits, folder, service.work)
        order = await service.work(_order, service, view, form, folder)
        job = await service.work(_take, service, view, order)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return JobTaken(job=job_answer(job))


@router.get("/index")
async def jobs(view: Curator, request: Request) -> JobsAnswer:
    """The uploads of the caller, newest first; of everybody where no cameras bound the caller."""
    return JobsAnswer(jobs=[job_answer(job) for job in request.app.state.service.jobs.of(view.caller)])


@router.get("/index/{job}")
async def job(job: str, view: Curator, request: Request) -> JobAnswer:
    """What became of an upload so far."""
    return job_answer(request.app.state.service.jobs.one(view.caller, job))


@router.delete("/index/{job}")
async def cancel(job: str, view: Curator, request: Request) -> JobAnswer:
    """Asks an upload's indexing to end; what was added so far stays."""
    service: Service = request.app.state.service
    service.jobs.one(view.caller, job)
    await service.work(service.record, view.caller, "cancel", job=job)
    return job_answer(service.jobs.cancel(view.caller, job))


@router.post("/forget")
async def forget(asked: ForgetAsked, view: Administrator, request: Request) -> ForgetAnswer:
    """Erases images from disk: rows, thumbnails, old versions, snapshots."""
    service: Service = request.app.state.service
    return await service.work(_forget, service, view, asked)


async def _find(
    request: Request,
    view: View,
    deed: str,
    query: Query,
    pictures: Sequence[Image.Image] = (),
    digests: Sequence[str] = (),
) -> SearchAnswer:
    """Searches, and tells the audit log what was asked and what is shown before it is."""
    service: Service = request.app.state.service
    _check_size(query)

    def find() -> SearchAnswer:
        began = time.perf_counter()
        page = view.find(query, pictures)
        answer = search_answer(query, page, time.perf_counter() - began)
        ids = [hit.id for hit in page.hits]
        sent = {"pictures": list(digests)} if digests else {}
        service.record(view.caller, deed, asked=_asked(query), **sent, shown=ids, total=page.total)
        service.shown.add(view.caller, ids)
        return answer

    return await service.work(find)


def _check_size(query: Query) -> None:
    """Raises QueryError on what would keep others waiting."""
    texts, ids = len(query.texts), len(query.like) + len(query.right) + len(query.wrong)
    for what, value, most in (
        ("hits at once (k)", query.k, MOST_HITS),
        ("hits passed over (offset)", query.offset, MOST_OFFSET),
        ("descriptions", texts, MOST_TEXTS),
        ("images and marks", ids, MOST_IDS),
        ("re-ranked hits (rerank)", query.rerank, MOST_RERANKED),
        ("characters of descriptions", sum(len(text.text) for text in query.texts), 20_000),
    ):
        if value > most:
            raise QueryError(f"{value:,} {what} are more than {most:,}, the most that the service answers")


def _asked(query: Query) -> Mapping[str, Any]:
    """A query for the audit log: what is not as by default."""
    return query.model_dump(mode="json", exclude_defaults=True)


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


def _explain(service: Service, view: View, asked: ExplainAsked) -> ExplainAnswer:
    told = view.explain(asked.query, asked.id)
    service.record(view.caller, "explain", asked=_asked(asked.query), shown=[asked.id])
    return ExplainAnswer.model_validate(told.as_dict())


def _detail(service: Service, view: View, name: str) -> DetailAnswer:
    hit = view.image(name)
    tracklet = hit.attributes.get("tracklet")
    members = [] if tracklet is None else view.tracklet(str(tracklet))
    ids = [hit.id, *(each.id for each in members if each.id != hit.id)]
    service.record(view.caller, "detail", shown=ids)
    service.shown.add(view.caller, ids)
    return detail_answer(hit, members)


def _gallery(service: Service, view: View) -> GalleryAnswer:
    settings = service.settings
    return GalleryAnswer(
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


def _order(service: Service, view: View, form: Form, folder: Path) -> Order:
    """What a form asks for. Raises RequestError, also where none of its files is allowed, AnnotationError and SettingsError."""
    unknown = sorted(form.fields.keys() - {"camera", "start", "detect", "metadata"})
    if unknown:
        raise RequestError(400, "form", f"unknown field {unknown[0][:50]!r}; there are: camera, start, detect, metadata")
    if not form.files:
        raise RequestError(400, "form", "send at least one file as 'files'")
    columns = parse_columns((form.fields.get("metadata") or "{}").encode(), "metadata")
    camera, start = form.fields.get("camera") or None, form.fields.get("start") or None
    if start is not None and parse_time(start) is None:
        raise SettingsError(f"start {start[:50]!r} is no ISO 8601 time such as 2024-05-01T08:30:00")
    cameras = view.caller.cameras
    if cameras is not None and (columns.get("camera") or camera) not in cameras:
        raise RequestError(403, "camera", f"say of which of your cameras the pictures are: camera = {', '.join(cameras)}")
    if (reason := refusal([upload.file for upload in form.files])) is not None:
        raise RequestError(415, "format", reason)
    looks = FootageSettings(photographs=form.fields.get("detect", "false").lower() == "true")
    began = None if start is None else parse_time(start)
    footage = Footage(looks, camera=camera, start=began, within=cameras)
    return Order(view.caller, folder, form.files, columns, footage, service.sent_pictures)


def _take(service: Service, view: View, order: Order) -> Job:
    sizes = [upload.size for upload in order.files]
    service.record(view.caller, "upload", files=len(sizes), bytes=sum(sizes), camera=order.footage.camera)
    return service.jobs.submit(order)


def _forget(service: Service, view: View, asked: ForgetAsked) -> ForgetAnswer:
    """The log tells that and how much was erased, not whose images: by a name or a condition somebody could still be found."""
    if asked.where is not None:
        written(asked.where)
    by = [name for name in ("ids", "identity", "where", "before") if getattr(asked, name) not in (None, [])]
    service.record(view.caller, "forget", by=by, ids=asked.ids, dry_run=asked.dry_run)
    report = service.gallery.forget(asked.where, asked.identity, asked.before, asked.ids, asked.dry_run)
    if not asked.dry_run:
        if service.blur is not None:
            service.blur.forget()
        service.audit.write(view.caller.name, view.caller.id, "forgotten", by=by, images=report.images)
    return ForgetAnswer(
        images=report.images,
        gallery=report.gallery,
        snapshots=dict(report.snapshots),
        undated=report.undated,
        dry_run=report.dry_run,
        seconds=report.seconds,
    )


def _read(kind: Any, content: bytes) -> Any:
    """A value of a schema from JSON. Raises RequestError (422)."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(422, "request", f"{where or 'the body'}: {first['msg']}") from error
