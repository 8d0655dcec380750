"""C-ITC: the similarities within and across the two modalities should agree (paper: cyclic consistency)."""

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
    """in_modal * mean_ij (s(I_i,I_j) - s(T_i,T_j))^2 + cross_modal * mean_ij (s(I_i,T_j) - s(I_j,T_i))^2, s the cosine.

    variant "paper" is the formula as printed: the sum of both terms, each 1/N sum_ij and without a weight, so it grows with the
    batch. It takes no weights: `SettingsError` when one is given.
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
