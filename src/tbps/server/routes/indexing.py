"""Routes that add files to the gallery: uploads and their jobs."""

import shutil
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from tbps.errors import RequestError, SettingsError
from tbps.gallery import Footage, FootageSettings, as_name, canonical_name
from tbps.preprocess.metadata import parse_columns, parse_time
from tbps.server.bodies.answers import JobAnswer, JobsAnswer, JobTaken, job_answer
from tbps.server.bodies.requests import CAMERA_LENGTH, TIME_LENGTH
from tbps.server.callers.gate import Caller
from tbps.server.guard import View
from tbps.server.routes.access import REFUSED, Curator, Id, rendered, service_of
from tbps.server.service import Service
from tbps.server.strict_json import parse
from tbps.server.uploads.formats import refusal
from tbps.server.uploads.forms import Form, FormLimits, read_form
from tbps.server.uploads.indexing import Order
from tbps.server.uploads.records import Job

_METADATA_VALUES = 1000
_UPLOAD = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "camera": {"type": "string", "maxLength": CAMERA_LENGTH},
        "start": {"type": "string", "maxLength": TIME_LENGTH, "description": "start time of a video, ISO 8601"},
        "detect": {"type": "string", "enum": ["true", "false"]},
        "metadata": {"type": "string", "description": "JSON object: columns of every image of this upload"},
    },
}
_FIELDS = sorted(_UPLOAD["properties"].keys() - {"files"})  # type: ignore[attr-defined]

router = APIRouter(prefix="/v1", responses=REFUSED)


@router.post(
    "/index",
    status_code=202,
    response_model=JobTaken,
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD}}}},
)
async def index(view: Curator, request: Request) -> Response:
    """Upload pictures, archives of pictures and videos. Uploads are indexed one after another."""
    service = service_of(request)
    settings = service.settings
    limits = FormLimits("files", settings.upload_files, settings.upload_bytes, settings.upload_bytes)
    with service.arriving(view.caller):
        folder = await service.work(service.jobs.folder)
        try:
            form = await read_form(request, limits, folder, service.work)
            order = await service.work(_order, service, view, form, folder)
            job = await service.work(_submit, service, view, order)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return rendered(JobTaken(job=job_answer(job)), 202)


@router.get("/index", response_model=JobsAnswer)
async def jobs(view: Curator, request: Request) -> Response:
    """List uploads, newest first: all uploads, or only its own for a key that is restricted to cameras."""
    service = service_of(request)
    return await service.work(_jobs, service, view.caller)


@router.get("/index/{job}", response_model=JobAnswer)
async def job(job: Id, view: Curator, request: Request) -> Response:
    """Get the state of an upload."""
    service = service_of(request)
    return await service.work(_job, service, view.caller, job)


@router.delete("/index/{job}", response_model=JobAnswer)
async def cancel(job: Id, view: Curator, request: Request) -> Response:
    """Cancel the indexing of an upload. Images added so far stay in the gallery."""
    service = service_of(request)
    return await service.work(_cancel, service, view.caller, job)


def _jobs(service: Service, caller: Caller) -> Response:
    return rendered(JobsAnswer(jobs=[job_answer(job) for job in service.jobs.visible_to(caller)]))


def _job(service: Service, caller: Caller, job_id: str) -> Response:
    return rendered(job_answer(service.jobs.one(caller, job_id)))


def _cancel(service: Service, caller: Caller, job_id: str) -> Response:
    service.jobs.one(caller, job_id)
    service.record(caller, "cancel", job=job_id)
    return rendered(job_answer(service.jobs.cancel(caller, job_id)))


def _order(service: Service, view: View, form: Form, folder: Path) -> Order:
    """Convert a form to an order.

    Raises RequestError for invalid fields, for a camera that the caller may not add to, or if no file has an allowed format;
    AnnotationError for malformed metadata; SettingsError for a malformed time.
    """
    if unknown := sorted(form.fields.keys() - set(_FIELDS)):
        raise RequestError(400, "form", f"unknown field {unknown[0][:50]!r}; there are: camera, start, detect, metadata")
    if not form.files:
        raise RequestError(400, "form", "send at least one file as 'files'")
    columns = _columns(form.fields.get("metadata") or "{}")
    footage = _footage(form, view.caller)
    cameras = view.caller.cameras
    if cameras is not None and as_name(columns.get("camera") or footage.camera) not in set(map(canonical_name, cameras)):
        raise RequestError(403, "camera", f"set the field 'camera' to a camera of your key: {', '.join(cameras)}")
    if (reason := refusal([upload.file for upload in form.files])) is not None:
        raise RequestError(415, "format", reason)
    return Order(view.caller, folder, form.files, columns, footage, service.sent_pictures)


def _footage(form: Form, caller: Caller) -> Footage:
    """Options of a form for reading videos, and for detecting people in photographs. Raises RequestError, SettingsError."""
    camera, start = form.fields.get("camera") or None, form.fields.get("start") or None
    for name, text, most in (("camera", camera, CAMERA_LENGTH), ("start", start, TIME_LENGTH)):
        if text is not None and len(text) > most:
            raise RequestError(400, "form", f"field {name!r} has {len(text):,} characters, more than {most:,}; shorten it")
    if (detect := form.fields.get("detect", "false").lower()) not in ("true", "false"):
        raise RequestError(400, "form", f"field 'detect' is {detect[:50]!r}; send true or false")
    began = None if start is None else parse_time(start)
    if start is not None and began is None:
        raise SettingsError(f"start {start[:50]!r} is not an ISO 8601 time such as 2024-05-01T08:30:00")
    return Footage(FootageSettings(photographs=detect == "true"), camera=camera, start=began, within=caller.cameras)


def _columns(metadata: str) -> dict[str, Any]:
    """Columns of a form for all of its images. Raises RequestError (400), AnnotationError."""
    content = metadata.encode()
    try:
        parse(content, "metadata", _METADATA_VALUES)
    except RequestError as error:
        raise RequestError(400, "form", str(error)) from error
    return parse_columns(content, "metadata")


def _submit(service: Service, view: View, order: Order) -> Job:
    sizes = [upload.size for upload in order.files]
    service.record(view.caller, "upload", files=len(sizes), bytes=sum(sizes), camera=order.footage.camera)
    return service.jobs.submit(order)
