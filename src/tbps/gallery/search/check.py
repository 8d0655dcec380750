"""Recall of approximate search: its hits for descriptions compared with those of exact search on the same version of a gallery."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from tbps.errors import QueryError
from tbps.gallery.encoder import Encoder
from tbps.gallery.search.versions import Versions
from tbps.gallery.store.filter_reading import written
from tbps.seeding import generator

_WHO = ("a woman", "a man", "a girl", "a boy")
_COLOURS = ("a black", "a white", "a red", "a blue", "a green", "a yellow", "a grey", "a brown", "a pink", "an orange")
_TOPS = ("coat", "jacket", "t-shirt", "shirt", "sweater", "hoodie")
_REST = (
    "and blue jeans",
    "and black trousers",
    "and shorts",
    "and a skirt",
    "with a backpack",
    "carrying a handbag",
    "with long dark hair",
    "wearing white sneakers",
)


@dataclass(frozen=True, slots=True)
class RecallReport:
    """Recall and speed of a gallery's searches.

    recall: mean recall@k of the gallery's searches against exact search; least: recall@k of the worst description; approximate:
    whether any search was approximate (if not, recall is 1); seconds, exact_seconds: median time of one search.
    """

    images: int
    queries: int
    k: int
    recall: float
    least: float
    approximate: bool
    seconds: float
    exact_seconds: float


def descriptions(count: int = 200) -> list[str]:
    """Makes `count` different descriptions of people from common words, the same in every call; at most 1,920."""
    every = [" ".join(parts) for parts in product((f"{who} in" for who in _WHO), _COLOURS, _TOPS, _REST)]
    order = generator(0, "descriptions").permutation(len(every))
    return [every[place] for place in order[:count]]


def check_recall(versions: Versions, model: Encoder, texts: Sequence[str], k: int, where: str | None = None) -> RecallReport:
    """Compares the gallery's search with exact search for every text. Raises QueryError without a text or on a malformed filter."""
    if not texts:
        raise QueryError("no description to check with; give a file with one description per line")
    versions.prepare()
    version = versions.newest()
    passing = None if where is None else version.passing(written(where))
    shares, seconds, exact_seconds, approximate = [], [], [], False
    for embedding in model.encode_texts(texts).astype(np.float64):
        query = embedding / np.linalg.norm(embedding)
        began = time.perf_counter()
        found = version.top(query, k, passing)
        between = time.perf_counter()
        exact, _ = version.exact.top(query, k, passing)
        exact_seconds.append(time.perf_counter() - between)
        seconds.append(between - began)
        shares.append(len(np.intersect1d(found.positions, exact)) / len(exact) if len(exact) else 1.0)
        approximate = approximate or found.approximate
    return RecallReport(
        images=version.rows.count,
        queries=len(texts),
        k=k,
        recall=statistics.fmean(shares),
        least=min(shares),
        approximate=approximate,
        seconds=statistics.median(seconds),
        exact_seconds=statistics.median(exact_seconds),
    )
