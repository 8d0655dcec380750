"""Classification losses: identities (ID) and masked words (MLM).

ID   1/2 [CE(W f_I, y) + CE(W f_T, y)], averaged over pairs
MLM  -1/M sum over masked tokens of log p(word)

f_I, f_T  un-normalised embeddings of image and text (D)
W         the identity classifier, shared by both (C, D); `image_logits` = W f_I, `text_logits` = W f_T
y         `labels` of ID: identities, numbered from 0
CE        cross-entropy of softmax(logits) with a class
p         softmax over the vocabulary (V words) at a masked token
M         `count`: number of masked tokens
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

UNMASKED = -100
"""Label of a token that is not predicted."""


def id_loss(
    image_logits: Float[Tensor, "n C"], text_logits: Float[Tensor, "n C"], labels: Int[Tensor, " n"] | Int[Tensor, "n 2"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the identities under the logits of both embeddings (Zheng et al., TOMM 2020).

    A pair with two labels has the target 1/2 for each of them.
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
    """-1/M sum over masked tokens of log p(word); 0 without masked tokens.

    labels: id of the word at a masked token, `UNMASKED` elsewhere. count: M, by default the number of masked tokens in `labels`.
    If the logits are only part of a batch, pass the number in the whole batch, so that the losses of the parts add up to its loss.
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
    """Mask words at random; returns the masked tokens and the labels (BERT, Devlin et al. 2019; IRRA, Jiang and Ye 2023).

    Each word is chosen with `probability`. Of the chosen words 80 % become the `mask` token, 10 % a random word, and 10 % stay.
    words: ids below this number are words; start and end tokens are not. spared: positions that are never chosen, such as padding.
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
    """Converts logits to float32; float64 stays float64."""
    return logits if logits.dtype == torch.float64 else logits.float()
