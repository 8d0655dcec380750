"""Losses over classes: identities (ID) and masked words (MLM)."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

UNMASKED = -100
"""Label of a token that is not to be predicted."""


def id_loss(
    image_logits: Float[Tensor, "n C"], text_logits: Float[Tensor, "n C"], labels: Int[Tensor, " n"] | Int[Tensor, "n 2"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the identities under the classifier's logits of both embeddings, averaged (Zheng et al., TOMM 2020).

    A pair with two labels has half of its target on each of them.
    """
    with torch.autocast(image_logits.device.type, enabled=False):
        of_label = [
            (F.cross_entropy(_wide(image_logits), one) + F.cross_entropy(_wide(text_logits), one)) / 2
            for one in (labels.unbind(1) if labels.ndim == 2 else (labels,))
        ]
        return torch.stack(of_label).mean()


def mlm_loss(
    logits: Float[Tensor, "n V"], labels: Int[Tensor, " n"], count: Float[Tensor, ""] | float | None = None
) -> Float[Tensor, ""]:
    """-sum over masked tokens of log p(word), divided by `count` (default: how many there are; 0 where there are none).

    labels: the word's id at a masked token, `UNMASKED` elsewhere. count: the masked tokens of the whole batch where the logits
    are of a part of it, so that the losses of the parts add up to the loss of the whole.
    """
    masked = (labels != UNMASKED).sum().clamp(min=1) if count is None else count
    with torch.autocast(logits.device.type, enabled=False):
        return F.cross_entropy(_wide(logits), labels, ignore_index=UNMASKED, reduction="sum") / masked


def mask_tokens(
    tokens: Int[Tensor, "n L"],
    words: int,
    mask: int,
    probability: float,
    generator: torch.Generator,
    spared: Bool[Tensor, "n L"] | None = None,
) -> tuple[Int[Tensor, "n L"], Int[Tensor, "n L"]]:
    """Tokens with some of the words masked, and the labels (BERT, Devlin et al. 2019; IRRA, Jiang and Ye 2023).

    Each word, but no start, end or padding token, is chosen with `probability`; of the chosen 80 % become the `mask` token, 10 %
    a random word and 10 % stay. Ids below `words` are words; those at `spared` places never are.
    """
    draws = torch.rand(tokens.shape, generator=generator)
    fate = torch.rand(tokens.shape, generator=generator)
    random_words = torch.randint(words, tokens.shape, generator=generator)
    chosen = (draws < probability) & (tokens < words)
    if spared is not None:
        chosen = chosen & ~spared
    labels = torch.where(chosen, tokens, UNMASKED)
    masked = torch.where(chosen & (fate < 0.8), mask, tokens)
    return torch.where(chosen & (fate >= 0.9), random_words, masked), labels


def _wide(logits: Tensor) -> Tensor:
    """float32 at least, whatever the autocast made of the logits."""
    return logits if logits.dtype == torch.float64 else logits.float()
