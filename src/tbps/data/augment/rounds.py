"""Drawn augmentations of a batch: the strengths of every operation for every image."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of augmentation of N images. The neutral value of an operation leaves that image unchanged.

    crop, erase: (N, 4) float top, left, height, width in pixels (neutral: the whole image; an empty box). angle: (N,) degrees,
    counter-clockwise. flip, vertical_flip, grayscale: (N,) bool. brightness, contrast, saturation: (N,) factors (neutral: 1).
    hue: (N,) turns of the colour circle. blur: (N,) standard deviations in pixels (neutral: 0). erase_fill: RGB in [0, 1].
    """

    crop: Tensor
    erase: Tensor
    grayscale: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    flip: Tensor
    vertical_flip: Tensor
    angle: Tensor
    blur: Tensor
    blur_kernel: int = 3
    erase_fill: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def part(self, rows: slice) -> "Round":
        """Returns the round of a slice of the images."""
        return replace(self, **{name: getattr(self, name)[rows] for name in BY_IMAGE})


BY_IMAGE = tuple(f.name for f in fields(Round) if f.name not in ("blur_kernel", "erase_fill"))
"""Fields with one value per image."""


def neutral_round(count: int, size: tuple[int, int], device: torch.device | str = "cpu") -> Round:
    """Returns the round that changes nothing, for `count` images of (height, width) `size`."""
    ones, zeros = torch.ones(count, device=device), torch.zeros(count, device=device)
    no = torch.zeros(count, dtype=torch.bool, device=device)
    return Round(
        crop=torch.tensor([0.0, 0.0, *size], device=device).expand(count, 4),
        erase=torch.zeros(count, 4, device=device),
        grayscale=no,
        brightness=ones,
        contrast=ones,
        saturation=ones,
        hue=zeros,
        flip=no,
        vertical_flip=no,
        angle=zeros,
        blur=zeros,
    )
