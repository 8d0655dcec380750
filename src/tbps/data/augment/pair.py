"""Augmentation of whole (image, caption) pairs: two pairs become one that shows and says both.

    MixGen     the mean of both images; both captions, one after the other
    ConcatGen  both images, squeezed to half their width, side by side; both captions, one after the other

With `probability` a batch is mixed at all; then `share` of its pairs each take a partner, which itself stays as it is. So does
the reference implementation; there the mixed pair keeps the identity of its first half, and the partner counts as a negative of
a pair that shows it. Here the second identity is recorded too, and every loss over identities counts both. Masked words (MLM) need
no more than this: they are words of both captions, to be found in an image that shows both people. Caption words behind the
tokenizer's context length are lost, as in the reference, and so are neither read nor masked.
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
    """`share` of a batch is mixed, with `probability`; the values are the paper's, which has it off in the end."""

    method: Literal["none", "mixgen", "concatgen"] = "none"
    """Method: "mixgen" averages two images, "concatgen" puts them side by side; both join the captions. "none" for none."""
    share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of a mixed batch's pairs that get a partner."""
    probability: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Probability that a batch is mixed."""


@dataclass(frozen=True, slots=True)
class MixedPairs:
    """A batch of pairs, some of them mixed. `mixed_with`: the second identity of each; of an unmixed pair its own once more."""

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
    """The batch with some pairs mixed; nothing given is changed. uint8 stays uint8, rounded; floats stay floats.

    A CPU generator serves tensors on any device. `ValueError` when images, captions and identities differ in number.
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
    """Each squeezed by the mean of the pixels that fall together; of an odd width the right half gets the odd column."""
    height, width = first.shape[2:]
    left = F.adaptive_avg_pool2d(first, (height, width // 2))
    right = F.adaptive_avg_pool2d(second, (height, width - width // 2))
    return torch.cat([left, right], 3)
