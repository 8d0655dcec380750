"""Distillation: a student learns the similarities of its teacher (Wu et al., "TinyCLIP", ICCV 2023: affinity mimicking).

1/2 [KL(t_i2t || p_i2t) + KL(t_t2i || p_t2i)], averaged over rows

p_ij  softmax_j(scale s_ij), s_ij the student's cosine of row i and column j, in both directions (i2t, t2i)
t_ij  the same of the teacher, without gradient
"""

import torch
from jaxtyping import Float
from torch import Tensor

from tbps.losses.contrastive import SoftSource
from tbps.losses.similarity import directions, unit_sides


def distill(
    image: Float[Tensor, "n D"],
    text: Float[Tensor, "n D"],
    teacher: SoftSource,
    scale: float = 50.0,
    *,
    gathered: tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]] | None = None,
) -> Float[Tensor, ""]:
    """Distillation loss: 1/2 [KL(t_i2t || p_i2t) + KL(t_t2i || p_t2i)], averaged over rows.

    It is 0 if every row of the student's cosines equals the teacher's up to a constant. teacher: the teacher's image, text and
    gathered embeddings of the same pairs, of any width. scale: one fixed factor for both models, so that the student's learned
    temperature has no influence. With a high scale only the nearest columns matter, with a low one all of them. A scale near the
    learned one corresponds to T = 1 of the usual distillation, which needs no factor T^2.
    """
    loss = image.new_zeros((), dtype=torch.float32)
    taught = directions(unit_sides(*teacher), scale)
    for logits, wanted in zip(directions(unit_sides(image, text, gathered), scale), taught, strict=True):
        if wanted.shape != logits.shape:
            raise ValueError(
                f"the teacher's similarities {tuple(wanted.shape)} are not of the student's pairs {tuple(logits.shape)}"
            )
        log_t, log_p = wanted.detach().log_softmax(dim=1), logits.log_softmax(dim=1)
        loss = loss + (log_t.exp() * (log_t - log_p)).sum(dim=1).mean() / 2
    return loss
