"""Explains a score: the contribution of each word of a query and of each region of the image.

    word     weight of its description x (cos(t, x) - cos(t without the word, x)): the loss of score without the word
    region   see `tbps.model.relevance`; negative contributions count as 0, and the largest is scaled to 1

t: unit embedding of a description (of a long one, the mean of its parts, as in `compose`); x: embedding of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from PIL import Image

from tbps.errors import QueryError
from tbps.gallery.encoder import Encoder
from tbps.gallery.search.compose import Composed
from tbps.gallery.search.parts import has_words, split_long
from tbps.gallery.search.query import Text

MOST_WORDS = 300
ANYBODY = "a person"  # replaces a description of one word when that word is removed


@dataclass(frozen=True, slots=True)
class Word:
    """A word, as typed, of the description `text`. weight: its contribution to the score, negative if it lowers the score.

    avoided: whether the description has a negative weight in the query.
    """

    text: str
    word: str
    weight: float
    avoided: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explanation of the score of one image.

    score: cosine between query and image; words: those of all descriptions, in order; regions: contributions in [0, 1] on a grid;
    notices: messages for the user about descriptions that were split.
    """

    score: float
    words: tuple[Word, ...]
    regions: Float64[np.ndarray, "rows columns"]
    notices: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The explanation as JSON values."""
        rows, columns = self.regions.shape
        return {
            "score": self.score,
            "words": [{"text": word.text, "word": word.word, "weight": word.weight} for word in self.words],
            "regions": {"rows": rows, "columns": columns, "weights": self.regions.round(4).tolist()},
            "notices": list(self.notices),
        }


def explain(
    model: Encoder, composed: Composed, texts: Sequence[Text], picture: Image.Image, embedding: Float64[np.ndarray, " D"]
) -> Explanation:
    """Explains the score of an image. composed, texts: those of the query; picture, embedding: those of the image.

    The picture may be a thumbnail; the score is that of the embedding. Raises QueryError if the descriptions have more than 300
    words together, ModelError as `Encoder.carried`.
    """
    count = sum(len(part.split()) for text in texts for part in split_long(text.text, model).texts)
    if count > MOST_WORDS:
        raise QueryError(f"{count} words are too many to explain; at most {MOST_WORDS}")
    words = [word for text in texts for word in _words(model, text, embedding)]
    carried = np.maximum(model.carried(picture, composed.vector.astype(np.float32)).astype(np.float64), 0)
    shares = carried / max(float(carried.max()), 1e-12)
    return Explanation(float(composed.vector @ embedding), tuple(words), shares, composed.notices)


def _words(model: Encoder, text: Text, embedding: np.ndarray) -> list[Word]:
    """The contribution of each word; all descriptions with one word removed are encoded in one batch."""
    parts = [part.split() for part in split_long(text.text, model).texts]
    without = [(number, at) for number, part in enumerate(parts) for at in range(len(part))]
    shorter = [" ".join(part for place, part in enumerate(parts[number]) if place != at) for number, at in without]
    asked = [" ".join(part) for part in parts] + [each if has_words(each) else ANYBODY for each in shorter]
    rows = model.encode_texts(asked).astype(np.float64)
    whole, changed = rows[: len(parts)], rows[len(parts) :]
    score = _cosine(whole.mean(0), embedding)
    words = []
    for (number, at), row in zip(without, changed, strict=True):
        others = whole.copy()
        others[number] = row
        weight = text.weight * (score - _cosine(others.mean(0), embedding))
        words.append(Word(text.text, parts[number][at], weight, text.weight < 0))
    return words


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))
