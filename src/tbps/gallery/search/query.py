"""What can be asked of a gallery, as one value that the command line, Python and a service share and JSON can carry.

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
"""How many of the best images `--rerank` orders anew."""

_WEIGHT = re.compile(r"(?<!\\)\^(\d+(?:\.\d*)?|\.\d+)\s*$")


class Text(Settings):
    """A description; what it describes is sought where the weight is positive and avoided where it is negative."""

    text: str = Field(max_length=20_000)
    weight: float = Field(1.0, allow_inf_nan=False)


class Example(Settings):
    """An image of the gallery by its id: more (or, with a negative weight, less) like this."""

    id: str
    weight: float = Field(1.0, allow_inf_nan=False)


class Query(Settings):
    """One search. See `compose` for what the parts of a question become, `filters` for the conditions, `find` for the answer.

    texts, like: what is sought, weighted; picture_weight: of each picture that is given beside the query.
    right, wrong: ids of images marked in an earlier answer.
    where: a filter as `filter_text` reads it; cameras, since (included), until (excluded; both ISO 8601, UTC where they name no
    zone), equals (column -> value, or null): filters in parts. All of them must hold.
    group: a column (tracklet, identity, any other); each of its values becomes one hit.
    k, offset: the page; version: the gallery's version that an earlier page was of.
    rerank: how many of the best are re-ranked by k-reciprocal neighbours; 0: none.
    share: where the line is drawn: the share of right ones expected above it. Needs a calibrated model.
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
    r"""A description as it is typed: "-backpack" avoids, "a red coat^2" weighs twice, "-backpack^1" avoids as strongly as 1.

    An avoided one weighs 0.5 unless it says otherwise. A backslash makes a leading minus or the circumflex literal: "\-5 degrees".
    """
    text, weight = argument.encode("utf-8", "replace").decode(), 1.0  # a command line may hold what is no UTF-8
    if avoided := text.lstrip().startswith("-"):
        text, weight = text.lstrip()[1:], NEGATIVE_WEIGHT
    if found := _WEIGHT.search(text):
        text, weight = text[: found.start()], float(found.group(1))
    text = text.replace("\\^", "^")
    return Text.parse({"text": text[1:] if text.startswith("\\-") else text, "weight": -weight if avoided else weight})
