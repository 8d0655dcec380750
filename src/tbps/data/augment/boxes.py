"""Random boxes inside images, for cropping and erasing.

The share of the image's area is uniform in `area`; the shape (height / width) is log-uniform in `shape`. As in torchvision, the
first of ten draws that fits into the image is used. The rule applies if none fits:

    fitting      share and shape are drawn once more, among the boxes that fit, so every box stays random
    torchvision  the caller's fallback: for a crop the largest central box within the shape, for erasing nothing

In narrow images torchvision's fallback is the normal case: at 384 x 128 pixels no box of 90 % of the area has a width between 3/4
and 4/3 of its height, so every crop would be the same central 171 rows.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

# Draws of area and shape before the rule applies, as in torchvision.
_ATTEMPTS = 10

Rule = Literal["fitting", "torchvision"]
Size = tuple[int, int] | Tensor
"""(height, width) of all images, or (N, 2) with one row per image."""


@dataclass(frozen=True, slots=True)
class BoxRange:
    """Ranges of random boxes. `relative`: `shape` is a multiple of the image's own height / width; 1 keeps its proportions."""

    area: tuple[float, float]
    shape: tuple[float, float]
    relative: bool = False
    rule: Rule = "fitting"


def draw_boxes(
    count: int, size: Size, wanted: BoxRange, generator: torch.Generator
) -> tuple[Float32[Tensor, "N 4"], Bool[Tensor, " N"]]:
    """Draws boxes (top, left, height, width) in whole pixels, and whether they fit; with the rule "fitting" all do.

    With "fitting", an image that is too narrow or too flat for every box in the ranges gets the largest box of an allowed shape, at
    a random place. The number of random numbers depends on `count` only.
    """
    height, width = _sides(size, generator.device)

    def uniform() -> Tensor:
        return torch.rand(count, _ATTEMPTS, generator=generator, device=generator.device)

    share = wanted.area[0] + (wanted.area[1] - wanted.area[0]) * uniform()
    shape = torch.exp(math.log(wanted.shape[0]) + math.log(wanted.shape[1] / wanted.shape[0]) * uniform())
    down, across = uniform(), uniform()
    if wanted.relative:
        shape = shape * (height / width)
    heights = (height * width * share * shape).sqrt().round()  # (N, attempts)
    widths = (height * width * share / shape).sqrt().round()
    fits = (heights <= height) & (widths <= width) & (heights > 0) & (widths > 0)
    first = fits.int().argmax(1, keepdim=True)
    sides = [side.gather(1, first) for side in (heights, widths)]
    fit = fits.any(1)
    if wanted.rule == "fitting":
        # Reuses the place numbers of the last attempt as random numbers: where no draw fits, the shares and shapes drawn are no
        # longer uniform, but the places are, and the box below uses only the places of the first attempt.
        last = _fitting(height, width, wanted, across[:, -1:], down[:, -1:])
        sides = [torch.where(fit[:, None], drawn, other) for drawn, other in zip(sides, last, strict=True)]
        fit = torch.ones_like(fit)
    places = [
        (drawn.gather(1, first) * (whole - side + 1)).floor()
        for drawn, whole, side in zip((down, across), (height, width), sides, strict=True)
    ]
    return torch.cat([*places, *sides], 1), fit


def central_boxes(count: int, size: Size, shape: tuple[float, float], device: torch.device) -> Float32[Tensor, "N 4"]:
    """Returns the largest central box with height / width in `shape`: torchvision's fallback for a crop."""
    height, width = (side.expand(count, 1) for side in _sides(size, device))
    heights = torch.minimum(height, (width * shape[1]).round())
    widths = torch.minimum(width, (height / shape[0]).round())
    return torch.cat([((height - heights) / 2).floor(), ((width - widths) / 2).floor(), heights, widths], 1)


def _sides(size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns heights and widths, (N, 1), or (1, 1) where all images have one size."""
    sizes = size if isinstance(size, Tensor) else torch.tensor([size])
    sides = sizes.to(device, torch.float32)
    return sides[:, :1], sides[:, 1:]


def _fitting(height: Tensor, width: Tensor, wanted: BoxRange, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Returns heights and widths of boxes inside the images, from two uniform numbers per image.

    A box of share s and shape v is not higher than the image where s v <= H / W, and not wider where s / v <= W / H.
    """
    aspect = height / width
    least, most = (limit * aspect if wanted.relative else torch.full_like(aspect, limit) for limit in wanted.shape)
    largest = torch.minimum(most / aspect, aspect / least).clamp(max=wanted.area[1])
    smallest = largest.clamp(max=wanted.area[0])
    share = smallest + (largest - smallest) * one
    low, high = torch.maximum(least, share * aspect).log(), torch.minimum(most, aspect / share).log()
    shape = (low + (high - low) * other).exp()
    heights = (height * width * share * shape).sqrt().round()
    widths = (height * width * share / shape).sqrt().round()
    return torch.minimum(heights.clamp(min=1), height), torch.minimum(widths.clamp(min=1), width)
