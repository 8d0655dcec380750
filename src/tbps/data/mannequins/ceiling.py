"""The ceiling of retrieval on mannequins: ranking by the ground-truth attributes that a caption mentions.

Images are ranked first by the number of mentions that they contradict (the image shows the slot, with a value that the words
exclude), then by the number that they confirm. Images with equal numbers are tied; the report breaks ties at random.

Why a model can hardly rank better: this ranking knows every attribute without error, and a true caption never contradicts its own
image, which is therefore always among the images without a contradiction. All of these are compatible with every word of the query.
Limits: the ranking ignores what a caption does *not* mention, and treats all values that a word covers alike, although annotators
usually mention a hat that they see, and say "blue" more often of blue than of navy. A model that learns such habits could order
tied images and so score slightly above the ceiling.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float32

from tbps.data.records import PersonDataset

Attributes = Mapping[str, str]
Mentions = Mapping[str, Sequence[str]]
CeilingScores = Callable[[int, int], Float32[np.ndarray, "Q G"]]


def has_mentions(split: PersonDataset) -> bool:
    """Returns whether every image has the columns that the ceiling needs: "attributes", and "mentions" of every caption."""
    return bool(split.images) and all(
        isinstance(image.attributes.get("attributes"), Mapping)
        and isinstance(mentions := image.attributes.get("mentions"), Sequence)
        and len(mentions) == len(image.captions)
        and all(isinstance(mention, Mapping) for mention in mentions)
        for image in split.images
    )


def ceiling_scores(split: PersonDataset) -> CeilingScores | None:
    """Returns `attribute_scores` of a split; None for a split without attributes and mentions."""
    return attribute_scores(split) if has_mentions(split) else None


def attribute_scores(split: PersonDataset) -> CeilingScores:
    """Returns `scores(start, stop)`: scores of captions start .. stop - 1, in the order of `split.pairs()`, against all images."""
    queries = [mentions for image in split.images for mentions in image.attributes["mentions"]]
    return mention_scores(queries, [image.attributes["attributes"] for image in split.images])


def mention_scores(queries: Sequence[Mentions], gallery: Sequence[Attributes]) -> CeilingScores:
    """Returns scores of mentions (slot -> compatible values) against shown attributes (slot -> value).

    The number of confirmations is a matrix product of one-hot rows over all (slot, value) pairs. The number of mentioned slots that
    the image shows is a second product, over slots; mentions among these that are not confirmed are contradicted.
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
    """Returns (count, len(columns)) float32 with ones where a bag contains the item of the column."""
    found = np.zeros((count, len(columns)), dtype=np.float32)
    for row, bag in enumerate(bags):
        found[row, [columns[item] for item in bag if item in columns]] = 1
    return found
