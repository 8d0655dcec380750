"""Reads and validates JSON bodies within limits on bytes and values."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from tbps.errors import RequestError
from tbps.server.bodies.requests import (
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
_MESSAGE_LENGTH = 300


@final
@dataclass(frozen=True, slots=True)
class Body(Generic[_Model]):
    """Kind of request body: its model, and limits on its number of bytes and values."""

    model: type[_Model]
    most_bytes: int
    most_values: int

    def read(self, content: bytes) -> _Model:
        """Parse and validate a body. Raises RequestError (422) with the first problem."""
        value = parse(content, "the body", self.most_values)
        try:
            return self.model.model_validate(value)
        except ValidationError as error:
            raise RequestError(422, "request", problem_of(error)) from error

    def described(self) -> dict[str, Any]:
        """`openapi_extra` of a route with this body; `schemas` provides the components that it refers to."""
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
    """JSON schemas of all bodies, by name."""
    _, made = models_json_schema([(body.model, "validation") for body in BODIES], ref_template=_REF)
    found: dict[str, Any] = made["$defs"]
    return found


def is_json(request: Request) -> bool:
    """Whether the content type of a request is JSON."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media == "application/json" or (media.startswith("application/") and media.endswith("+json"))


async def content_of(request: Request, most: int) -> bytes:
    """Read the bytes of a JSON body.

    Raises RequestError: 415 for another content type, 413 for more than `most` bytes, 408 for a sender that is too slow (see
    `outside`).
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
    """Format the first problem of a value as one line: path and message."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(ascii(part[:60])[1:-1] if isinstance(part, str) else str(part) for part in first["loc"])
    what = " ".join(str(first["msg"]).removeprefix("Value error, ").split())
    return f"{where[:_MESSAGE_LENGTH] or 'the body'}: {what[:_MESSAGE_LENGTH]}"
