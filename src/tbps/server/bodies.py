"""Reads JSON bodies: after the caller is known, within a size and a time, and away from the thread that answers everybody."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from tbps.errors import RequestError
from tbps.server.asked import (
    FORGET_BYTES,
    FORGET_VALUES,
    QUERY_BYTES,
    QUERY_VALUES,
    SIGN_IN_BYTES,
    SIGN_IN_VALUES,
    ExplainAsked,
    FeedbackAsked,
    ForgetAsked,
    Query,
    SignIn,
    SimilarAsked,
)
from tbps.server.strict_json import parse

_Model = TypeVar("_Model", bound=BaseModel)
_REF = "#/components/schemas/{model}"
_MESSAGE = 300


@final
@dataclass(frozen=True, slots=True)
class Body(Generic[_Model]):
    """A kind of body: its schema, and the most bytes and values that it may have."""

    model: type[_Model]
    most_bytes: int
    most_values: int

    def read(self, content: bytes) -> _Model:
        """The body of a request. Raises RequestError (422) with what is wrong first, however much is."""
        value = parse(content, "the body", self.most_values)
        try:
            return self.model.model_validate(value)
        except ValidationError as error:
            raise RequestError(422, "request", problem_of(error)) from error

    def described(self) -> dict[str, Any]:
        """For the OpenAPI description of a route, whose components `schemas` makes."""
        content = {"application/json": {"schema": {"$ref": _REF.format(model=self.model.__name__)}}}
        return {"requestBody": {"required": True, "content": content}}


SEARCH = Body(Query, QUERY_BYTES, QUERY_VALUES)
SIMILAR = Body(SimilarAsked, QUERY_BYTES, QUERY_VALUES)
FEEDBACK = Body(FeedbackAsked, QUERY_BYTES, QUERY_VALUES)
EXPLAIN = Body(ExplainAsked, QUERY_BYTES, QUERY_VALUES)
FORGET = Body(ForgetAsked, FORGET_BYTES, FORGET_VALUES)
SIGN_IN = Body(SignIn, SIGN_IN_BYTES, SIGN_IN_VALUES)
BODIES: tuple[Body[Any], ...] = (SEARCH, SIMILAR, FEEDBACK, EXPLAIN, FORGET, SIGN_IN)


def schemas() -> dict[str, Any]:
    """The schemas of all bodies, by name."""
    _, made = models_json_schema([(body.model, "validation") for body in BODIES], ref_template=_REF)
    found: dict[str, Any] = made["$defs"]
    return found


def is_json(request: Request) -> bool:
    """Whether a request says that its body is JSON."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


async def content_of(request: Request, most: int) -> bytes:
    """The bytes of a JSON body.

    Raises RequestError: 415 for another kind, 413 for more than `most` bytes, 408 for a sender that is too slow (see `outside`).
    """
    if not is_json(request):
        raise RequestError(415, "media", "send JSON, with the header Content-Type: application/json")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise RequestError(413, "too_large", f"the request has more than {most:,} bytes")
        parts.append(part)
    return b"".join(parts)


def problem_of(error: ValidationError) -> str:
    """The first thing that is wrong with a value, in one line: where, and what."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(ascii(part[:60])[1:-1] if isinstance(part, str) else str(part) for part in first["loc"])
    what = " ".join(str(first["msg"]).removeprefix("Value error, ").split())
    return f"{where[:_MESSAGE] or 'the body'}: {what[:_MESSAGE]}"
