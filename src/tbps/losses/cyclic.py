"""C-ITC: similarities within and across the two modalities should agree (paper: cyclic consistency).

C-ITC  a 1/N^2 sum_ij (s(I_i, I_j) - s(T_i, T_j))^2 + b 1/N^2 sum_ij (s(I_i, T_j) - s(I_j, T_i))^2

I_i, T_i  `image`, `text`: embeddings of pair i
s         cosine
a         `in_modal`: weight of image-to-image against text-to-text similarities
b         `cross_modal`: weight of image-to-text against text-to-image similarities
N         number of pairs
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from tbps.errors import SettingsError
from tbps.losses.similarity import similarity, unit_sides

REFERENCE_WEIGHT = 0.25


def c_itc(
    image: Float[Tensor, "n D"],
    text: Float[Tensor, "n D"],
    in_modal: float = REFERENCE_WEIGHT,
    cross_modal: float = REFERENCE_WEIGHT,
    *,
    variant: Literal["reference", "paper"] = "reference",
    gathered: tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]] | None = None,
) -> Float[Tensor, ""]:
    """Cyclic contrastive loss: in_modal mean_ij (s(I_i,I_j) - s(T_i,T_j))^2 + cross_modal mean_ij (s(I_i,T_j) - s(I_j,T_i))^2.

    variant "paper" is the printed formula: both terms are 1/N sum_ij without weights, so the loss grows with the batch. Raises
    SettingsError for a weight that this variant does not have.
    """
    if variant not in ("reference", "paper"):
        raise SettingsError(f'variant is "reference" or "paper", not {variant!r}')
    if variant == "paper" and (in_modal, cross_modal) != (REFERENCE_WEIGHT, REFERENCE_WEIGHT):
        raise SettingsError(f'in_modal {in_modal} and cross_modal {cross_modal} are weights of variant="reference" only')
    sides = unit_sides(image, text, gathered)
    within = similarity(sides.image, sides.image_all) - similarity(sides.text, sides.text_all)  # (n, N)
    across = similarity(sides.image, sides.text_all) - similarity(sides.text, sides.image_all)  # (n, N)
    if variant == "paper":
        return (within.square() + across.square()).sum(dim=1).mean()
    return in_modal * within.square().mean() + cross_modal * across.square().mean()
