"""Queries: everything that a search of a gallery can specify, in Python, on the command line and over HTTP.

query = Query(texts=(Text(text="a woman in a red coat"), Text(text="backpack", weight=-0.5)), cameras=("lobby",), group="tracklet")
page = gallery.find(query)
"""

import re
from collections.abc import Mapping

from pydantic import Field

from tbps.config import Settings
from tbps.gallery.store.filters import Value

NEGATIVE_WEIGHT = 0.5
RERANKED = 100
"""Number of best images that `--rerank` re-ranks."""

_WEIGHT = re.compile(r"(?<!\\)\^(\d+(?:\.\d*)?|\.\d+)\s*$")


class Text(Settings):
    """A description in a query; a negative weight avoids what it describes."""

    text: str = Field(max_length=20_000)
    weight: float = Field(1.0, allow_inf_nan=False)


class Example(Settings):
    """An image of the gallery as part of a query; a negative weight avoids similar images."""

    id: str
    weight: float = Field(1.0, allow_inf_nan=False)


class Query(Settings):
    """One query. `compose` turns its parts into a vector, `conditions` applies its filters, `find` returns the hits.

    texts, like: descriptions and images of the gallery, weighted; picture_weight: weight of each picture passed with the query.
    right, wrong: ids of images that were marked in earlier hits (relevance feedback).
    where: a filter in the language of `filter_text`; cameras; since (inclusive) and until (exclusive): ISO 8601, UTC if they name
    no zone; equals: column -> value, or null. All of these filters must hold.
    group: a column, such as tracklet or identity; the hits are then the best images of its values.
    k, offset: size and start of the page; version: the gallery version of an earlier page, None for the newest.
    rerank: how many of the first hits are re-ranked by k-reciprocal neighbours; 0: none.
    share: expected share of right hits above the page's cutoff; used with a calibrated model only.
    """

    texts: tuple[Text, ...] = ()
    like: tuple[Example, ...] = ()
    picture_weight: float = Field(1.0, allow_inf_nan=False)
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    where: str | None = None
    cameras: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    equals: Mapping[str, Value] = {}
    group: str | None = None
    k: int = Field(10, ge=1, le=10_000)
    offset: int = Field(0, ge=0)
    version: int | None = None
    rerank: int = Field(0, ge=0, le=1000)
    share: float = Field(1 / 3, gt=0, lt=1)


def phrase(argument: str) -> Text:
    r"""Parses a description as typed: "-backpack" avoids backpacks, "a red coat^2" has weight 2, "-backpack^1" weight -1.

    An avoided description without a weight has weight -0.5. A backslash makes a leading minus or circumflex literal: "\-5 degrees".
    """
    text, weight = argument.encode("utf-8", "replace").decode(), 1.0  # arguments of a command line may not be UTF-8
    if avoided := text.lstrip().startswith("-"):
        text, weight = text.lstrip()[1:], NEGATIVE_WEIGHT
    if found := _WEIGHT.search(text):
        text, weight = text[: found.start()], float(found.group(1))
    text = text.replace("\\^", "^")
    return Text.parse({"text": text[1:] if text.startswith("\\-") else text, "weight": -weight if avoided else weight})
