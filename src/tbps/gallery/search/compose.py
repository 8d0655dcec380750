"""From the parts of a question to one vector of the model's space.

    q  =  sum_i w_i t_i  +  sum_j v_j x_j                        unit embeddings of texts and images with their weights
    q' =  alpha q / |q|  +  beta mean(right)  -  gamma mean(wrong)        Rocchio (1971) on embeddings

alpha, beta, gamma = 1, 1, 0.25. A description longer than the model's context is split (`search.parts`), and t is the mean of its
parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from PIL import Image

from tbps.errors import QueryError
from tbps.gallery.encoder import Encoder, Picture
from tbps.gallery.search.parts import split_long
from tbps.gallery.search.query import Query
from tbps.preprocess.image import open_image, upright_rgb

ALPHA, BETA, GAMMA = 1.0, 1.0, 0.25


@dataclass(frozen=True, slots=True)
class Direction:
    """vector: unit; by_text: texts alone made it; plain: one description alone, as a model is calibrated on."""

    vector: Float64[np.ndarray, " D"]
    by_text: bool
    plain: bool
    notices: tuple[str, ...]


def compose(query: Query, pictures: Sequence[Picture], model: Encoder, known: Mapping[str, np.ndarray]) -> Direction:
    """The direction of a query; `known`: the embeddings of the gallery's images that it names.

    Raises QueryError when nothing is sought, a text has no word, or the parts cancel out; ImageError on an unreadable picture.
    """
    weights = [*(text.weight for text in query.texts), *(example.weight for example in query.like)]
    weights += [query.picture_weight] * len(pictures)
    if not query.right and max(weights, default=0) <= 0:
        raise QueryError("nothing is sought: describe the person, give a picture or the id of an image of the gallery")
    described = [split_long(text.text, model) for text in query.texts]
    notices = tuple(notice for parts in described if (notice := parts.notice))
    rows = iter(model.encode_texts([part for parts in described for part in parts.texts]).astype(np.float64) if described else ())
    weighted: list[tuple[float, np.ndarray]] = []
    for text, parts in zip(query.texts, described, strict=True):
        weighted.append((text.weight, _normal(np.mean([next(rows) for _ in parts.texts], axis=0))))
    for example in query.like:
        weighted.append((example.weight, known[example.id]))
    if pictures:
        opened = [upright_rgb(picture) if isinstance(picture, Image.Image) else open_image(picture) for picture in pictures]
        weighted += [(query.picture_weight, row) for row in model.encode_images(opened).astype(np.float64)]
    vector = np.zeros(model.dim)
    if weighted:
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.sum([weight * row for weight, row in weighted], axis=0)
        vector = ALPHA * _normal(total)
    if query.right:
        vector = vector + BETA * np.mean([known[name] for name in query.right], axis=0)
    if query.wrong:
        vector = vector - GAMMA * np.mean([known[name] for name in query.wrong], axis=0)
    by_text = not (query.like or pictures or query.right or query.wrong)
    plain = by_text and len(query.texts) == 1 and query.texts[0].weight > 0 and not notices
    return Direction(_normal(vector), by_text, plain, notices)


def named(query: Query) -> tuple[str, ...]:
    """The ids of the gallery's images that a query names."""
    return tuple(dict.fromkeys([*(example.id for example in query.like), *query.right, *query.wrong]))


def _normal(vector: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.linalg.norm(vector))
    if not np.isfinite(length):
        raise QueryError("the weights of the query are too large; 1 is that of a description without a weight")
    if length < 1e-6:
        raise QueryError("the parts of the query cancel each other out; change their weights")
    return vector / length
