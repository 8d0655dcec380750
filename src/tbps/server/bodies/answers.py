"""Bodies of answers, from which the OpenAPI description is generated. Bodies of requests are in `requests`."""

from typing import Any

from pydantic import Field

from tbps.gallery import Hit, Page, Summary
from tbps.server.bodies.requests import MOST_OFFSET, Query, Wire
from tbps.server.callers.keys import Role
from tbps.server.uploads.records import Job, State


class ErrorDetail(Wire):
    """Reason for a refusal or failure."""

    code: str = Field(description="machine-readable code")
    message: str = Field(description="one sentence for people")


class ErrorAnswer(Wire):
    """Answer to a request that was refused or failed."""

    error: ErrorDetail


class SessionAnswer(Wire):
    """The caller. cameras: cameras that the caller may see, null for all; open: no keys exist and every caller is administrator."""

    name: str
    role: Role
    cameras: list[str] | None
    open: bool


class GroupAnswer(Wire):
    """Group of images with the same value of a column; the hit is the best of them. ids: best first; count: number of images."""

    column: str
    value: Any
    count: int
    first_seen: str | None
    last_seen: str | None
    ids: list[str]


class HitAnswer(Wire):
    """One image. score: cosine similarity; chance: calibrated probability of being right, or null; image: path of the crop."""

    rank: int
    score: float
    id: str
    camera: str | None
    captured_at: str | None
    identity: str | None
    source: str
    attributes: dict[str, Any]
    chance: float | None
    group: GroupAnswer | None
    image: str


class LineAnswer(Wire):
    """Estimate from the calibration. share: expected share of right hits among the first `hits`; if 0, chance of the first hit."""

    hits: int
    share: float


class SearchAnswer(Wire):
    """One page of hits. query: the query that was answered, with marks; next: query of the next page, null on the last one.

    line: how many of the first hits are expected to be right at the share that the query asks for; null without a calibrated model.
    """

    hits: list[HitAnswer]
    total: int
    version: int
    query: Query
    next: Query | None
    line: LineAnswer | None
    approximate: bool
    notices: list[str]
    seconds: float


class WordAnswer(Wire):
    """A word of a description. text: the description; weight: contribution to the score, negative if it lowered the score."""

    text: str
    word: str
    weight: float


class RegionsAnswer(Wire):
    """Contribution of image regions on a grid over the whole image. weights: rows from the top, in [0, 1]."""

    rows: int
    columns: int
    weights: list[list[float]]


class ExplainAnswer(Wire):
    """Contributions of words and image regions to the score of an image."""

    score: float
    words: list[WordAnswer]
    regions: RegionsAnswer
    notices: list[str]


class MemberAnswer(Wire):
    """One image of a tracklet."""

    id: str
    captured_at: str | None
    frame: int | None
    box: list[int] | None
    image: str


class DetailAnswer(Wire):
    """Metadata of an image. box: left, top, width, height in the frame; tracklet_members: by time, empty without a tracklet."""

    id: str
    camera: str | None
    captured_at: str | None
    identity: str | None
    source: str
    attributes: dict[str, Any]
    box: list[int] | None
    frame: int | None
    tracklet: str | None
    tracklet_members: list[MemberAnswer]


class SkippedAnswer(Wire):
    """A file of an upload that was not indexed."""

    name: str
    reason: str


class JobAnswer(Wire):
    """State of an upload. done, total: pictures, or frames of the current video; rate: of these per second."""

    id: str
    state: State
    done: int
    total: int | None
    rate: float
    seconds_left: float | None
    added: int
    skipped: list[SkippedAnswer]
    message: str
    created_at: str


class JobTaken(Wire):
    """The job of a new upload."""

    job: JobAnswer


class JobsAnswer(Wire):
    """Jobs of uploads, newest first."""

    jobs: list[JobAnswer]


class CameraAnswer(Wire):
    """A camera and its number of images; name: null for images without a camera."""

    name: str | None
    images: int


class ColumnAnswer(Wire):
    """A column for filters. values: most frequent values in order, null for columns whose values hardly repeat."""

    name: str
    kind: str
    values: list[Any] | None


class LimitsAnswer(Wire):
    """Limits of the service. upload_bytes, upload_files: per upload; picture_bytes, pixels: per picture; hits: per page."""

    upload_bytes: int
    upload_files: int
    picture_bytes: int
    pixels: int
    hits: int


class GalleryAnswer(Wire):
    """Content of the gallery that the caller may see.

    calibrated: whether hits have a `chance`; blurred: whether faces are blurred.
    """

    images: int
    cameras: list[CameraAnswer]
    columns: list[ColumnAnswer]
    first_seen: str | None
    last_seen: str | None
    model: str
    calibrated: bool
    blurred: bool
    limits: LimitsAnswer


class ForgetAnswer(Wire):
    """Number of erased images. snapshots: number per snapshot; undated: images without a time, to which `before` does not apply."""

    images: int
    gallery: int
    snapshots: dict[str, int]
    undated: int
    dry_run: bool
    seconds: float


class HealthAnswer(Wire):
    """Health of the service. status: "ready" or "warming"."""

    status: str


def image_url(id: str) -> str:
    """URL path of the crop of an image."""
    return f"/v1/images/{id}"


def hit_answer(hit: Hit) -> HitAnswer:
    """Convert a hit, without file paths of this machine."""
    return HitAnswer(
        **_metadata(hit),
        rank=hit.rank,
        score=hit.score,
        chance=hit.chance,
        group=None if hit.group is None else GroupAnswer.model_validate(hit.group, from_attributes=True),
        image=image_url(hit.id),
    )


def search_answer(query: Query, page: Page, seconds: float) -> SearchAnswer:
    """Convert a page of hits. `next` is null if the offset of the next page is larger than the API allows."""
    following = None if page.next is None else query.model_copy(update={"offset": page.next.offset, "version": page.next.version})
    notices = list(page.notices)
    if following is not None and following.offset > MOST_OFFSET:
        following = None
        notices.append(f"there are no pages beyond the first {MOST_OFFSET:,} hits; narrow the search")
    return SearchAnswer(
        hits=[hit_answer(hit) for hit in page.hits],
        total=page.total,
        version=page.version,
        query=query,
        next=following,
        line=None if page.line is None else LineAnswer(hits=page.line.hits, share=page.line.share),
        approximate=page.approximate,
        notices=notices,
        seconds=round(seconds, 4),
    )


def detail_answer(hit: Hit, members: list[Hit]) -> DetailAnswer:
    """Convert the metadata of an image and the images of its tracklet."""
    tracklet = hit.attributes.get("tracklet")
    return DetailAnswer(
        **_metadata(hit),
        box=_box(hit),
        frame=_number(hit, "frame"),
        tracklet=None if tracklet is None else str(tracklet),
        tracklet_members=[
            MemberAnswer(
                id=each.id,
                captured_at=each.captured_at,
                frame=_number(each, "frame"),
                box=_box(each),
                image=image_url(each.id),
            )
            for each in members
        ],
    )


def job_answer(job: Job) -> JobAnswer:
    """Convert the state of a job, without internal fields."""
    return JobAnswer(
        id=job.id,
        state=job.state,
        done=job.done,
        total=job.total,
        rate=job.rate,
        seconds_left=job.seconds_left,
        added=job.added,
        skipped=[SkippedAnswer(name=name, reason=reason) for name, reason in job.skipped],
        message=job.message,
        created_at=job.created_at,
    )


def summary_parts(summary: Summary | None) -> dict[str, Any]:
    """Fields of `GalleryAnswer` about the images that a caller may see. summary: None if there are none."""
    if summary is None:
        return {"images": 0, "cameras": [], "columns": [], "first_seen": None, "last_seen": None}
    return {
        "images": summary.images,
        "cameras": [CameraAnswer(name=name, images=images) for name, images in summary.cameras],
        "columns": [
            ColumnAnswer(name=column.name, kind=column.kind, values=None if column.values is None else list(column.values))
            for column in summary.columns
        ],
        "first_seen": None if summary.first_seen is None else summary.first_seen.isoformat(),
        "last_seen": None if summary.last_seen is None else summary.last_seen.isoformat(),
    }


def _metadata(hit: Hit) -> dict[str, Any]:
    """Fields that `HitAnswer` and `DetailAnswer` have in common."""
    return {
        "id": hit.id,
        "camera": hit.camera,
        "captured_at": hit.captured_at,
        "identity": hit.identity,
        "source": hit.source,
        "attributes": dict(hit.attributes),
    }


def _box(hit: Hit) -> list[int] | None:
    sides = [_number(hit, f"box_{side}") for side in ("x", "y", "width", "height")]
    return [side for side in sides if side is not None] if None not in sides else None


def _number(hit: Hit, name: str) -> int | None:
    value = hit.attributes.get(name)
    return int(value) if isinstance(value, int | float) else None
