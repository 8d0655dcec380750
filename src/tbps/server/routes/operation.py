"""Routes for the operation of the service: health and metrics."""

from fastapi import APIRouter, Request, Response

from tbps.server.bodies.answers import HealthAnswer
from tbps.server.routes.access import REFUSED, Administrator, service_of

router = APIRouter()


@router.get("/healthz")
async def health(request: Request) -> HealthAnswer:
    """Get the status "warming" while the model and the gallery are being loaded, "ready" afterwards."""
    return HealthAnswer(status="ready" if service_of(request).ready.is_set() else "warming")


@router.get("/metrics", response_class=Response, responses=REFUSED)
async def metrics(view: Administrator, request: Request) -> Response:
    """Get metrics in the format of Prometheus."""
    service = service_of(request)
    service.metrics.images.set(await service.work(len, service.gallery))
    service.metrics.jobs.set(service.jobs.unfinished())
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")
