"""The ceiling: ranking mannequins by the ground-truth attributes that a caption mentions.

An image is ranked first by how few mentions it contradicts (it shows the slot, with a value that the words exclude), then by
how many it confirms. Images that agree on both counts are tied; whoever reports the ceiling breaks ties at random.

In what sense nothing does better: the ranking knows every attribute without error, and a true caption never contradicts its own
image, so that is always among those without a contradiction. Whatever else has none is compatible with every word, and words
are all that a query is. Limits: what a caption does *not* say counts for nothing here, and a word counts for all its values
alike, although who sees a hat usually mentions it, and "blue" is more often said of blue than of navy. A model that learnt such
habits could order images that the ceiling leaves tied, and so rise slightly above it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float32

from tbps.data.records import PersonDataset

Attributes = Mapping[str, str]
Mentions = Mapping[str, Sequence[str]]
Scores = Callable[[int, int], Float32[np.ndarray, "Q G"]]


def has_mentions(split: PersonDataset) -> bool:
    """Whether every image carries the columns that the ceiling needs: "attributes", and "mentions" of every caption."""
    return bool(split.images) and all(
        isinstance(image.attributes.get("attributes"), Mapping)
        and isinstance(mentions := image.attributes.get("mentions"), Sequence)
        and len(mentions) == len(image.captions)
        and all(isinstance(mention, Mapping) for mention in mentions)
        for image in split.images
    )


def ceiling_scores(split: PersonDataset) -> Scores | None:
    """`attribute_scores` of a split, None for a split without attributes and mentions."""
    return attribute_scores(split) if has_mentions(split) else None


def attribute_scores(split: PersonDataset) -> Scores:
    """`scores(start, stop)`: scores of the captions start .. stop - 1, in `split.pairs()` order, against all images."""
    queries = [mentions for image in split.images for mentions in image.attributes["mentions"]]
    return mention_scores(queries, [image.attributes["attributes"] for image in split.images])


def mention_scores(queries: Sequence[Mentions], gallery: Sequence[Attributes]) -> Scores:
    """Scores of mentions (slot -> compatible values) against shown attributes (slot -> value).

    With one-hot rows over all (slot, value) pairs, confirmations are a matrix product; mentions that the image shows at all are
    another one over slots, and what is shown but not confirmed is contradicted.
    """
    values = _numbered((slot, value) for shown in gallery for slot, value in shown.items())
    slots = _numbered(slot for shown in gallery for slot in shown)
    confirming = _rows(([(s, v) for s, vs in m.items() for v in vs] for m in queries), len(queries), values)
    mentioned = _rows(queries, len(queries), slots)
    shown_values = _rows((shown.items() for shown in gallery), len(gallery), values).T
    shown_slots = _rows(gallery, len(gallery), slots).T
    worse = np.float32(len(slots) + 1)  # one contradiction outweighs all confirmations

    def scores(start: int, stop: int) -> Float32[np.ndarray, "Q G"]:
        confirmed = confirming[start:stop] @ shown_values
        contradicted = mentioned[start:stop] @ shown_slots - confirmed
        return np.asarray(confirmed - worse * contradicted)

    return scores


def _numbered(items: Iterable[object]) -> dict[object, int]:
    return {item: number for number, item in enumerate(dict.fromkeys(items))}


def _rows(bags: Iterable[Iterable[object]], count: int, columns: Mapping[object, int]) -> np.ndarray:
    """(count, len(columns)) float32 with ones where a bag holds the column's item."""
    found = np.zeros((count, len(columns)), dtype=np.float32)
    for row, bag in enumerate(bags):
        found[row, [columns[item] for item in bag if item in columns]] = 1
    return found
