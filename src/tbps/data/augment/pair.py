"""Augmentation of (image, caption) pairs (MixGen, ConcatGen): two pairs become one that contains both.

    MixGen     the mean of both images; both captions, one after the other
    ConcatGen  both images, squeezed to half their width, side by side; both captions, one after the other

A batch is mixed with `probability`; then `share` of its pairs are each mixed with a partner, which itself stays unchanged. The
reference implementation does the same, but keeps only the identity of the first pair, so the partner counts as a negative although
the mixed image shows it. Here the second identity is recorded, and every loss over identities uses both. MLM needs no change: the
mixed image shows the people of both captions. Words beyond the tokenizer's context are cut off, as in the reference, and are never
masked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor

from tbps.config import Settings
from tbps.transfer import send


class PairAugmentation(Settings):
    """Settings of pair augmentation: with `probability`, `share` of a batch is mixed.

    The default values are the paper's; its final recipe does not mix.
    """

    method: Literal["none", "mixgen", "concatgen"] = "none"
    """Method: "mixgen" averages two images, "concatgen" puts them side by side; both join the captions. "none" mixes no pairs."""
    share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of a mixed batch's pairs that get a partner."""
    probability: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Probability that a batch is mixed."""


@dataclass(frozen=True, slots=True)
class MixedPairs:
    """A batch of pairs, some of them mixed. `mixed_with`: the second identity of each pair, its own for an unmixed one."""

    images: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"]
    captions: tuple[str, ...]
    identities: Int64[Tensor, " N"]
    mixed_with: Int64[Tensor, " N"]


def mix_pairs(
    images: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"],
    captions: Sequence[str],
    identities: Int64[Tensor, " N"],
    settings: PairAugmentation,
    generator: torch.Generator,
) -> MixedPairs:
    """Mixes some pairs of a batch; the inputs are not modified. uint8 stays uint8, rounded; floats stay floats.

    A CPU generator works for tensors on any device. Raises ValueError when images, captions and identities differ in number.
    """
    count = len(captions)
    if not len(images) == count == len(identities):
        raise ValueError(f"{len(images)} images, {count} captions and {len(identities)} identities are not pairs")
    happens = bool(torch.rand(1, generator=generator, device=generator.device) < settings.probability)
    order = torch.randperm(count, generator=generator, device=generator.device)
    mixed = int(settings.share * count)
    if settings.method == "none" or not happens or not mixed:
        return MixedPairs(images, tuple(captions), identities, identities)

    first, second = order[:mixed], order[mixed : 2 * mixed]
    said = list(captions)
    for row, partner in zip(first.tolist(), second.tolist(), strict=True):
        said[row] = f"{captions[row]} {captions[partner]}"
    combine = _mean if settings.method == "mixgen" else _side_by_side
    rows, partners = send(first, images.device), send(second, images.device)
    pixels = combine(images[rows].float(), images[partners].float())
    shown = images.clone()
    shown[rows] = pixels.to(images.dtype) if images.is_floating_point() else pixels.round().to(images.dtype)
    mixed_with = identities.clone()
    mixed_with[send(first, identities.device)] = identities[send(second, identities.device)]
    return MixedPairs(shown, tuple(said), identities, mixed_with)


def _mean(first: Tensor, second: Tensor) -> Tensor:
    return 0.5 * first + 0.5 * second


def _side_by_side(first: Tensor, second: Tensor) -> Tensor:
    """Places two images side by side, each squeezed by averaging pixels; of an odd width the right half gets the extra column."""
    height, width = first.shape[2:]
    left = F.adaptive_avg_pool2d(first, (height, width // 2))
    right = F.adaptive_avg_pool2d(second, (height, width - width // 2))
    return torch.cat([left, right], 3)
