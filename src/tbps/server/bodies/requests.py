"""Bodies of requests and their limits; the OpenAPI description is generated from these classes.

JSON Schema cannot express a limit on the sum of several fields; such limits are in the descriptions of the fields.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, Strict, StrictBool, StrictFloat, model_validator

from tbps import gallery
from tbps.gallery import MOST_CHARACTERS as MOST_OF_CONDITION

MOST_HITS, MOST_OFFSET, MOST_TEXTS, MOST_IDS, MOST_RERANKED = 200, 10_000, 16, 200, 200
MOST_CHARACTERS, MOST_CAMERAS, MOST_EQUALS, MOST_FORGOTTEN = 20_000, 1000, 64, 10_000
INT64 = 2**63 - 1
ID_LENGTH, TIME_LENGTH, COLUMN_LENGTH, CAMERA_LENGTH = 64, 64, 200, 1000

# Limits on bytes and values of a body. Measured: a query with 20,000 characters of descriptions, a condition of 10,000 characters
# and 200 ids has 68 kB, or 190 kB with every character escaped as \uXXXX; 10,000 ids to erase have 270 kB and are 10,000 values.
QUERY_BYTES, FORGET_BYTES, SIGN_IN_BYTES = 2**18, 2**19, 2**12
QUERY_VALUES, FORGET_VALUES, SIGN_IN_VALUES = 5000, 12_000, 10

Id = Annotated[str, Field(max_length=ID_LENGTH)]
Time = Annotated[str, Field(max_length=TIME_LENGTH)]
Column = Annotated[str, Field(max_length=COLUMN_LENGTH)]
Condition = Annotated[str, Field(max_length=MOST_OF_CONDITION)]
# Strict types: otherwise pydantic would convert a long text of digits to an infinite number.
ComparedValue = (
    StrictBool
    | Annotated[int, Strict(), Field(ge=-INT64 - 1, le=INT64)]
    | StrictFloat
    | Annotated[str, Strict(), Field(max_length=MOST_OF_CONDITION)]
    | None
)
Marks = Annotated[tuple[Id, ...], FailFast(), Field(max_length=MOST_IDS)]

_TOGETHER = f"at most {MOST_IDS} image ids in all fields together"


class Text(gallery.Text):
    """A description of a person. A positive weight ranks matching images higher, a negative one lower."""

    text: str = Field(
        max_length=MOST_CHARACTERS, description=f"at most {MOST_CHARACTERS:,} characters in all descriptions together"
    )


class Example(gallery.Example):
    """An example image by its id. A positive weight ranks similar images higher, a negative one lower."""

    id: Id


class Query(gallery.Query):
    """One search: descriptions, example images, marks, filters, and the range of hits to return."""

    texts: Annotated[tuple[Text, ...], FailFast(), Field(max_length=MOST_TEXTS)] = ()
    like: Annotated[tuple[Example, ...], FailFast(), Field(max_length=MOST_IDS, description=_TOGETHER)] = ()
    right: Annotated[Marks, Field(description=_TOGETHER)] = ()
    wrong: Annotated[Marks, Field(description=_TOGETHER)] = ()
    where: Condition | None = None
    cameras: Annotated[tuple[Annotated[str, Field(max_length=CAMERA_LENGTH)], ...], FailFast(), Field(max_length=MOST_CAMERAS)] = ()
    since: Time | None = None
    until: Time | None = None
    equals: Annotated[Mapping[Column, ComparedValue], Field(max_length=MOST_EQUALS)] = {}
    group: Column | None = None
    k: int = Field(10, ge=1, le=MOST_HITS)
    offset: int = Field(0, ge=0, le=MOST_OFFSET)
    version: int | None = Field(None, ge=0, le=INT64)
    rerank: int = Field(0, ge=0, le=MOST_RERANKED)

    @model_validator(mode="before")
    @classmethod
    def _within(cls, given: Any) -> Any:
        """Check sizes before pydantic validates the elements one by one."""
        if isinstance(given, Mapping):
            for what, value, most in _sizes(given):
                if value > most:
                    raise ValueError(f"{value:,} {what} are more than the allowed {most:,}")
            _check_integers(given.get("equals"))
        return given

    @model_validator(mode="after")
    def _within_sums(self) -> Self:
        characters = sum(len(text.text) for text in self.texts)
        if characters > MOST_CHARACTERS:
            raise ValueError(f"{characters:,} characters of descriptions are more than {MOST_CHARACTERS:,}; shorten them")
        _check_marks(self)
        return self


class Wire(BaseModel):
    """Base of all bodies: immutable, unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SignIn(Wire):
    """Key to sign in with."""

    key: str = Field(max_length=200)


class SimilarAsked(Wire):
    """Search for images similar to an image of the gallery."""

    id: Id
    query: Query = Field(default_factory=Query)


class FeedbackAsked(Wire):
    """Hits of an earlier search for `query` that were marked as right or wrong."""

    query: Query
    right: Annotated[Marks, Field(description=_TOGETHER)] = ()
    wrong: Annotated[Marks, Field(description=_TOGETHER)] = ()

    @model_validator(mode="after")
    def _within_sums(self) -> Self:
        _check_marks(self.query, (*self.right, *self.wrong))
        return self


class ExplainAsked(Wire):
    """An image among the hits of a search for `query`."""

    query: Query
    id: Id


class ForgetAsked(Wire):
    """Selection of images to erase: images that meet all given conditions."""

    ids: Annotated[list[Id], FailFast(), Field(max_length=MOST_FORGOTTEN)] = []
    identity: Annotated[str, Field(max_length=MOST_OF_CONDITION)] | None = None
    where: Condition | None = None
    before: Time | None = None
    dry_run: bool = False


def _sizes(given: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Name, size and limit of each limited field of a query, unless it has a wrong type."""
    numbers = (
        ("hits at once (k)", "k", MOST_HITS),
        ("skipped hits (offset)", "offset", MOST_OFFSET),
        ("re-ranked hits (rerank)", "rerank", MOST_RERANKED),
    )
    lists = (
        ("descriptions", "texts", MOST_TEXTS),
        ("example images (like)", "like", MOST_IDS),
        ("marks (right)", "right", MOST_IDS),
        ("marks (wrong)", "wrong", MOST_IDS),
        ("cameras", "cameras", MOST_CAMERAS),
        ("conditions (equals)", "equals", MOST_EQUALS),
    )
    sizes = [(what, given[name], most) for what, name, most in numbers if isinstance(given.get(name), int)]
    return sizes + [(what, len(given[name]), most) for what, name, most in lists if isinstance(given.get(name), list | dict)]


def _check_integers(equals: Any) -> None:
    """Raise ValueError for integers beyond 64 bits, which would be converted to floats and lose their last digits."""
    for column, value in equals.items() if isinstance(equals, Mapping) else ():
        if isinstance(value, int) and not -INT64 - 1 <= value <= INT64:
            raise ValueError(
                f"equals: {str(column)[:60]!r} is compared with an integer beyond 64 bits; write it as text, in quotes"
            )


def _check_marks(query: Query, more: Sequence[str] = ()) -> None:
    named = len(query.like) + len({*query.right, *query.wrong, *more})
    if named > MOST_IDS:
        raise ValueError(f"{named:,} images and marks are more than the allowed {MOST_IDS}")
