"""Routes for single images, the summary of the gallery, and erasing images."""

from fastapi import APIRouter, Request, Response

from tbps.gallery import calibration_of, written
from tbps.server.bodies import reading
from tbps.server.bodies.answers import DetailAnswer, ForgetAnswer, GalleryAnswer, LimitsAnswer, detail_answer, summary_parts
from tbps.server.bodies.requests import MOST_HITS, ForgetAsked
from tbps.server.guard import View
from tbps.server.recorded import Entry
from tbps.server.routes.access import REFUSED, Administrator, Id, Viewer, read_body, rendered, service_of
from tbps.server.service import Service

router = APIRouter(prefix="/v1", responses=REFUSED)


@router.get("/images/{id}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def image(id: Id, view: Viewer, request: Request) -> Response:
    """Get the crop of an image as JPEG."""
    service = service_of(request)
    content = await service.work(_image, service, view, id)
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, no-store"})


@router.get("/images/{id}/detail", response_model=DetailAnswer)
async def detail(id: Id, view: Viewer, request: Request) -> Response:
    """Get the metadata of an image, and the images of its tracklet."""
    service = service_of(request)
    return await service.work(_detail, service, view, id)


@router.get("/gallery", response_model=GalleryAnswer)
async def gallery(view: Viewer, request: Request) -> Response:
    """Get the number of images, the cameras, columns and time range of the gallery, and the limits of the service."""
    service = service_of(request)
    return await service.work(_gallery, service, view)


@router.post("/forget", response_model=ForgetAnswer, openapi_extra=reading.FORGET.described())
async def forget(view: Administrator, request: Request) -> Response:
    """Erase images from disk: rows, thumbnails, old versions, snapshots."""
    service = service_of(request)
    async with service.recorded(view.caller, "forget") as entry:
        asked = await read_body(request, reading.FORGET)
        return await service.work(_forget, service, view, entry, asked)


def _image(service: Service, view: View, id: str) -> bytes:
    hit = view.image(id)
    if not service.shown.holds(view.caller, hit.id):
        service.record(view.caller, "image", shown=[hit.id])
        service.shown.add(view.caller, [hit.id])
    return hit.thumbnail if service.blur is None else service.blur(hit.thumbnail)


def _detail(service: Service, view: View, id: str) -> Response:
    hit = view.image(id)
    tracklet = hit.attributes.get("tracklet")
    members = [] if tracklet is None else view.tracklet(str(tracklet))
    ids = [hit.id, *(each.id for each in members if each.id != hit.id)]
    answer = rendered(detail_answer(hit, members))
    service.record(view.caller, "detail", shown=ids)
    service.shown.add(view.caller, ids)
    return answer


def _gallery(service: Service, view: View) -> Response:
    settings = service.settings
    return rendered(
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


def _forget(service: Service, view: View, entry: Entry, asked: ForgetAsked) -> Response:
    """Erase images. The log records only the kinds of condition, the ids and the number of images: a name or a condition in the log
    could identify an erased person.
    """
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
    return rendered(
        ForgetAnswer(
            images=report.images,
            gallery=report.gallery,
            snapshots=dict(report.snapshots),
            undated=report.undated,
            dry_run=report.dry_run,
            seconds=report.seconds,
        )
    )
