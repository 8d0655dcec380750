"""Splits descriptions that are longer than a model's context.

A description is split at the ends of sentences, else of clauses, else of words. Scripts without spaces, and words that are too long
(addresses of web pages, 2,000 letters in a row), are split at punctuation, else between grapheme clusters (a letter with its
accents, an emoji with its skin tone).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import regex

from tbps.errors import CaptionError, QueryError
from tbps.gallery.encoder import Encoder
from tbps.preprocess.caption import MAX_WORDS, caption_words

# Where a description may be split, in order of preference; a part ends where a match ends.
_SENTENCES = re.compile(r"(?<=[.!?;])\s+|\n+|(?<=[\u3002\uff01\uff1f\uff0e\uff61\uff1b\u061b\u061f\u06d4\u0964\u0965\u1362])")
_CLAUSES = re.compile(r"(?<=,)\s+|(?<=[\uff0c\u3001\uff64\uff1a\u060c\u1363\u0e2f])")
_WORDS = re.compile(r"\s+")
_WITHIN = re.compile(r"(?<=[/?&=,.:;_|+\-])(?![/?&=,.:;_|+\-])")
_BORDERS = (_SENTENCES, _CLAUSES, _WORDS, _WITHIN)
_UNSPACED = _BORDERS.index(_WITHIN)
_CLUSTERS = r"\X"
_FIRST_GUESS = 32  # characters of a part without spaces


@final
@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a description, in order. within_words: whether it had to be split within a word."""

    texts: tuple[str, ...]
    within_words: bool

    @property
    def notice(self) -> str | None:
        """A notice for the user if the description was split, else None."""
        if len(self.texts) < 2:
            return None
        where = "; it was split within words, where it has no spaces" if self.within_words else ""
        return f"the description is longer than the model reads at once; {len(self.texts)} parts of it were averaged{where}"


def split_long(text: str, model: Encoder) -> Parts:
    """Splits a description into parts that fit the model's context; one that fits stays as it is.

    Raises QueryError if it has no word.
    """
    if not has_words(text):
        raise QueryError("the query has no word; describe the person, for example: a woman in a red coat")
    if _fits(text, model):
        return Parts((text,), within_words=False)
    splitting = _Splitting(model)
    parts = splitting.packed([text], 0)
    return Parts(tuple(part.strip() for part in parts), splitting.within_words)


def has_words(text: str) -> bool:
    """Whether a description has a word to encode."""
    try:
        caption_words(text)
    except CaptionError:
        return False
    return True


@final
class _Splitting:
    """Splits one description; `within_words` becomes true if a part ends within a word."""

    def __init__(self, model: Encoder) -> None:
        self._model = model
        self.within_words = False

    def packed(self, pieces: Sequence[str], level: int) -> list[str]:
        """Joins neighbouring pieces while they fit; splits a piece that does not fit at the borders of `level`, then finer ones."""
        parts: list[str] = []
        for piece in filter(has_words, pieces):
            if parts and _fits(joined := parts[-1] + piece, self._model):
                parts[-1] = joined
            elif _fits(piece, self._model):
                parts.append(piece)
            elif level < len(_BORDERS):
                self.within_words |= level >= _UNSPACED
                parts += self.packed(_cut(_BORDERS[level], piece), level + 1)
            else:
                parts += self._by_clusters(piece)
        return parts

    def _by_clusters(self, word: str) -> list[str]:
        clusters = [part for each in regex.findall(_CLUSTERS, word) for part in self._whole(each)]
        parts, start, guess = list[str](), 0, _FIRST_GUESS
        while start < len(clusters):
            end = self._longest(clusters, start, guess)
            parts.append("".join(clusters[start:end]))
            start, guess = end, end - start
        return list(filter(has_words, parts))

    def _whole(self, cluster: str) -> list[str]:
        """A cluster, as single code points if it does not fit (a letter with a hundred accents)."""
        return [cluster] if not has_words(cluster) or _fits(cluster, self._model) else list(cluster)

    def _longest(self, clusters: Sequence[str], start: int, guess: int) -> int:
        """The end of the longest part from `start` that fits, by exponential and then binary search."""

        def fits(end: int) -> bool:
            text = "".join(clusters[start:end])
            return not has_words(text) or _fits(text, self._model)

        good, bad = start + 1, len(clusters) + 1
        step = max(1, guess)
        while good < len(clusters) and bad > len(clusters):
            tried = min(start + step, len(clusters))
            if tried > good and not fits(tried):
                bad = tried
            else:
                good, step = max(good, tried), step * 2
        while bad - good > 1 and good < len(clusters):
            middle = (good + bad) // 2
            good, bad = (middle, bad) if fits(middle) else (good, middle)
        return good


def _cut(border: re.Pattern[str], text: str) -> list[str]:
    """Splits a text after each border; the joined pieces equal the text."""
    ends = [found.end() for found in border.finditer(text) if 0 < found.end() < len(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def _fits(text: str, model: Encoder) -> bool:
    return len(caption_words(text)) <= MAX_WORDS and not model.is_cut(text)
