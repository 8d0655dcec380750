"""Combines the parts of a query into one vector of the model's embedding space.

    q  =  sum_i w_i t_i  +  sum_j v_j x_j                        unit embeddings of texts and images with their weights
    q' =  alpha q / |q|  +  beta mean(right)  -  gamma mean(wrong)        Rocchio (1971) on embeddings

alpha, beta, gamma = 1, 1, 0.25. A description longer than the model's context is split (`search.parts`), and t is the mean of its
parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from PIL import Image

from tbps.errors import QueryError
from tbps.gallery.encoder import Encoder, Picture
from tbps.gallery.search.parts import split_long
from tbps.gallery.search.query import Query
from tbps.preprocess.image import open_image, upright_rgb

Sample = Picture | np.ndarray  # a picture, or an embedding (D,) of the gallery's model

ALPHA, BETA, GAMMA = 1.0, 1.0, 0.25


@dataclass(frozen=True, slots=True)
class Composed:
    """A query as a unit vector. by_text: it consists of texts only; plain: of one text that was not split, as in calibration."""

    vector: Float64[np.ndarray, " D"]
    by_text: bool
    plain: bool
    notices: tuple[str, ...]


def compose(query: Query, pictures: Sequence[Sample], model: Encoder, known: Mapping[str, np.ndarray]) -> Composed:
    """Computes the vector of a query. known: embeddings of the gallery's images that the query names, by id (see `ids_of`).

    Raises QueryError when no part has a positive weight, a text has no word, an embedding has another size or no direction, or the
    parts cancel out; ImageError on an unreadable picture.
    """
    weights = [*(text.weight for text in query.texts), *(example.weight for example in query.like)]
    weights += [query.picture_weight] * len(pictures)
    if not query.right and max(weights, default=0) <= 0:
        raise QueryError("nothing is sought: describe the person, give a picture or the id of an image of the gallery")
    split = [split_long(text.text, model) for text in query.texts]
    notices = tuple(notice for parts in split if (notice := parts.notice))
    encoded = iter(model.encode_texts([part for parts in split for part in parts.texts]).astype(np.float64) if split else ())
    rows = [_normal(np.mean([next(encoded) for _ in parts.texts], axis=0)) for parts in split]
    rows += [*(known[example.id] for example in query.like), *_depicted(pictures, model)]
    vector = np.zeros(model.dim)
    if rows:
        with np.errstate(over="ignore", invalid="ignore"):
            total = np.sum([weight * row for weight, row in zip(weights, rows, strict=True)], axis=0)
        vector = ALPHA * _normal(total)
    if query.right:
        vector = vector + BETA * np.mean([known[id] for id in query.right], axis=0)
    if query.wrong:
        vector = vector - GAMMA * np.mean([known[id] for id in query.wrong], axis=0)
    by_text = not (query.like or pictures or query.right or query.wrong)
    plain = by_text and len(query.texts) == 1 and query.texts[0].weight > 0 and not notices
    return Composed(_normal(vector), by_text, plain, notices)


def ids_of(query: Query) -> tuple[str, ...]:
    """The ids of the gallery's images that a query names."""
    return tuple(dict.fromkeys([*(example.id for example in query.like), *query.right, *query.wrong]))


def _depicted(pictures: Sequence[Sample], model: Encoder) -> list[np.ndarray]:
    """Unit embeddings of pictures, in their order."""
    opened = [
        upright_rgb(picture) if isinstance(picture, Image.Image) else open_image(picture)
        for picture in pictures
        if not isinstance(picture, np.ndarray)
    ]
    encoded = iter(model.encode_images(opened).astype(np.float64) if opened else ())
    return [_unit(each, model.dim) if isinstance(each, np.ndarray) else next(encoded) for each in pictures]


def _unit(embedding: Float[np.ndarray, " D"], dim: int) -> Float64[np.ndarray, " D"]:
    """An embedding scaled to length 1. Raises QueryError on one of another size or without direction."""
    vector = np.asarray(embedding, np.float64)
    if vector.shape != (dim,):
        raise QueryError(f"the query embedding has shape {vector.shape}; this gallery needs ({dim},)")
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0:
        raise QueryError("the query embedding is zero or not finite and has no direction")
    return vector / length


def _normal(vector: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.linalg.norm(vector))
    if not np.isfinite(length):
        raise QueryError("the weights of the query are too large; a description without a weight has weight 1")
    if length < 1e-6:
        raise QueryError("the parts of the query cancel each other out; change their weights")
    return vector / length
