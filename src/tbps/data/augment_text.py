"""The text augmentation of TBPS-CLIP: a caption gives way to its paraphrase, then loses words."""

from typing import Annotated

import numpy as np
from pydantic import Field

from tbps.config import Settings
from tbps.errors import CaptionError

_Probability = Annotated[float, Field(ge=0, le=1)]


class TextAugmentation(Settings):
    """`paraphrase_probability`: back translation replaces a caption; `deletion_probability`: each word is deleted."""

    enabled: bool = True
    paraphrase_probability: _Probability = 0.1
    deletion_probability: _Probability = 0.05


def augment_caption(caption: str, paraphrase: str | None, settings: TextAugmentation, rng: np.random.Generator) -> str:
    """The caption or its paraphrase, with words deleted at random; at least one word always stays.

    Words of the result are separated by single spaces. Raises CaptionError when the text to augment has no word.
    """
    if settings.enabled and rng.random() < settings.paraphrase_probability and paraphrase is not None:
        caption = paraphrase
    words = caption.split()
    if not words:
        raise CaptionError(f"caption {caption!r} has no word; describe the person in words")
    if not settings.enabled:
        return " ".join(words)
    kept = rng.random(len(words)) >= settings.deletion_probability
    if not kept.any():
        kept[rng.integers(len(words))] = True
    return " ".join(word for word, keep in zip(words, kept, strict=True) if keep)
