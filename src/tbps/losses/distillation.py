"""A student learns the similarities of a larger model, its teacher (Wu et al., "TinyCLIP", ICCV 2023: affinity mimicking)."""

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
    """1/2 [KL(t_i2t || p_i2t) + KL(t_t2i || p_t2i)], averaged over rows.

    p_ij = softmax_j(scale * cosine of the student's row i and column j), t_ij the same of the teacher, without gradient; 0 where
    every row of the student's cosines is the teacher's up to a constant. teacher: its image, text and gathered embeddings of the
    same pairs, of any width. scale is fixed and one for both, so that the student's own temperature has no part in it: at a high
    one only the nearest columns matter, at a low one all of them. Near the scale that the models learned it is T = 1 of the usual
    distillation, with no T^2 to make up for.
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
