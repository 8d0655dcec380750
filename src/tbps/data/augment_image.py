"""The augmentation pool of TBPS-CLIP, batched: every image gets its own operations with its own strengths.

Six operations, of which each image gets `pool_size` (the paper: two distinct ones; its code draws with replacement):

    crop       RandomResizedCrop: area `crop_scale` of the image, width/height log-uniform in `crop_ratio`
    erase      RandomErasing with probability: area `erase_area`, height/width log-uniform in `erase_ratio`, filled with black
    grayscale  with probability, the three channels become L = 0.299 R + 0.587 G + 0.114 B
    jitter     brightness b: b x; contrast c: c x + (1 - c) mean(L); saturation s: s x + (1 - s) L; each clipped to [0, 1]
    flip       horizontal, with probability
    rotation   around the centre, uniform in +-`rotation_degrees`, black outside

Drawing (`draw_rounds`) and applying (`apply_rounds`) are apart. A round holds one operation for each image, as tensors in which
every other operation has its neutral value, so that one round of any mixture, or all six at once, is the same arithmetic.
Whatever the order of the draws, geometry comes first, then colour (jitter, then grayscale), then erasing. The geometry of all
rounds is one affine map and one bilinear sampling, of which the outermost half pixel blends with the black outside.
Semantics are torchvision's, except that jitter has the fixed order brightness, contrast, saturation.
"""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator

from tbps.config import Settings
from tbps.errors import SettingsError

OPERATIONS = ("crop", "erase", "grayscale", "jitter", "flip", "rotation")

_LUMA = (0.299, 0.587, 0.114)
# Attempts to fit a box of the drawn area and ratio into the image before giving up, as in torchvision.
_ATTEMPTS = 10

_Probability = Annotated[float, Field(ge=0, le=1)]
_Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class ImageAugmentation(Settings):
    """Strengths of the pool; the defaults are the paper's. `with_replacement` reproduces the reference code's draws."""

    enabled: bool = True
    pool_size: int = Field(default=2, ge=0, le=len(OPERATIONS))
    with_replacement: bool = False
    crop_scale: _Range = (0.9, 1.0)
    crop_ratio: _Range = (3 / 4, 4 / 3)
    erase_probability: _Probability = 0.5
    erase_area: _Range = (0.1, 0.2)
    erase_ratio: _Range = (0.3, 3.3)
    grayscale_probability: _Probability = 0.1
    brightness: _Probability = 0.1
    contrast: _Probability = 0.1
    saturation: _Probability = 0.1
    flip_probability: _Probability = 0.5
    rotation_degrees: float = Field(default=15.0, ge=0, le=180)

    @model_validator(mode="after")
    def _ordered(self) -> "ImageAugmentation":
        for name in ("crop_scale", "crop_ratio", "erase_area", "erase_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise SettingsError(f"image augmentation: {name} = ({low}, {high}) must rise")
        if self.crop_scale[1] > 1 or self.erase_area[1] >= 1:
            raise SettingsError("image augmentation: crop_scale must not exceed 1 and erase_area must stay below 1")
        return self


@dataclass(frozen=True, slots=True)
class Round:
    """One operation for each of N images; the fields of the other operations hold their neutral value.

    crop, erase: (N, 4) float top, left, height, width in pixels (neutral: the whole image; an empty box). angle: (N,) degrees,
    counter-clockwise. flip, grayscale: (N,) bool. brightness, contrast, saturation: (N,) factors (neutral: 1).
    """

    crop: torch.Tensor
    erase: torch.Tensor
    grayscale: torch.Tensor
    brightness: torch.Tensor
    contrast: torch.Tensor
    saturation: torch.Tensor
    flip: torch.Tensor
    angle: torch.Tensor


def neutral_round(count: int, size: tuple[int, int], device: torch.device | str = "cpu") -> Round:
    """The round that changes nothing, for `count` images of (height, width) `size`."""
    ones, no = torch.ones(count, device=device), torch.zeros(count, dtype=torch.bool, device=device)
    whole = torch.tensor([0.0, 0.0, *size], device=device).expand(count, 4)
    return Round(whole, torch.zeros(count, 4, device=device), no, ones, ones, ones, no, torch.zeros(count, device=device))


def draw_rounds(count: int, size: tuple[int, int], settings: ImageAugmentation, generator: torch.Generator) -> tuple[Round, ...]:
    """`pool_size` rounds for `count` images of (height, width) `size`, on the generator's device."""
    device = generator.device
    if not settings.enabled:
        return ()
    if settings.with_replacement:
        chosen = torch.randint(len(OPERATIONS), (count, settings.pool_size), generator=generator, device=device)
    else:
        chosen = torch.rand(count, len(OPERATIONS), generator=generator, device=device).argsort(1)[:, : settings.pool_size]
    return tuple(_draw_round(chosen[:, r], size, settings, generator) for r in range(settings.pool_size))


def apply_rounds(images: torch.Tensor, rounds: tuple[Round, ...]) -> torch.Tensor:
    """(N, 3, H, W) uint8 on any device to float32 in [0, 1], with the drawn operations applied."""
    unit = images.float() / 255
    if not rounds:
        return unit
    _apply_geometry(unit, rounds)
    for drawn in rounds:
        _apply_jitter(unit, drawn)
        _apply_grayscale(unit, drawn)
    for drawn in rounds:
        _apply_erasing(unit, drawn)
    return unit


@torch.no_grad()
def augment_images(images: torch.Tensor, settings: ImageAugmentation, generator: torch.Generator) -> torch.Tensor:
    """(N, 3, H, W) uint8 to float32 in [0, 1], augmented and not yet normalised.

    A CPU generator serves images on any device: the few parameters are drawn on the CPU and copied.
    """
    rounds = draw_rounds(images.shape[0], (images.shape[2], images.shape[3]), settings, generator)
    return apply_rounds(images, rounds)


def _draw_round(operation: torch.Tensor, size: tuple[int, int], settings: ImageAugmentation, generator: torch.Generator) -> Round:
    """Draws every operation for every image, then keeps the chosen: how many numbers are drawn never depends on the choice."""
    count, device = len(operation), generator.device
    chosen = {name: operation == i for i, name in enumerate(OPERATIONS)}
    nothing = neutral_round(count, size, device)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=generator, device=device) * (high - low) + low

    def jitter(strength: float) -> torch.Tensor:
        return torch.where(chosen["jitter"], uniform(1 - strength, 1 + strength), 1.0)

    width_per_height = (1 / settings.crop_ratio[1], 1 / settings.crop_ratio[0])
    crop, fits = _draw_boxes(count, size, settings.crop_scale, width_per_height, generator)
    crop = torch.where(fits[:, None], crop, _central_crop(size, settings.crop_ratio, device))
    erase, erasable = _draw_boxes(count, size, settings.erase_area, settings.erase_ratio, generator)
    erased = erasable & (uniform(0, 1) < settings.erase_probability) & chosen["erase"]
    return replace(
        nothing,
        crop=torch.where(chosen["crop"][:, None], crop, nothing.crop),
        erase=torch.where(erased[:, None], erase, nothing.erase),
        grayscale=chosen["grayscale"] & (uniform(0, 1) < settings.grayscale_probability),
        brightness=jitter(settings.brightness),
        contrast=jitter(settings.contrast),
        saturation=jitter(settings.saturation),
        flip=chosen["flip"] & (uniform(0, 1) < settings.flip_probability),
        angle=torch.where(chosen["rotation"], uniform(-settings.rotation_degrees, settings.rotation_degrees), 0.0),
    )


def _draw_boxes(
    count: int,
    size: tuple[int, int],
    area: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 4) boxes of whole pixels with that share of the area and that height/width; (N,) bool: did one of ten draws fit."""
    height, width = size

    def uniform() -> torch.Tensor:
        return torch.rand(count, _ATTEMPTS, generator=generator, device=generator.device)

    share = area[0] + (area[1] - area[0]) * uniform()
    shape = torch.exp(math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * uniform())
    heights = (height * width * share * shape).sqrt().round()  # (N, attempts)
    widths = (height * width * share / shape).sqrt().round()
    fits = (heights <= height) & (widths <= width) & (heights > 0) & (widths > 0)
    tops = (uniform() * (height - heights + 1)).floor()
    lefts = (uniform() * (width - widths + 1)).floor()
    first = fits.int().argmax(1)
    boxes = torch.stack([tops, lefts, heights, widths], -1)[torch.arange(count, device=first.device), first]
    return boxes, fits.any(1)


def _central_crop(size: tuple[int, int], ratio: tuple[float, float], device: torch.device) -> torch.Tensor:
    """(4,) the largest central box whose width/height lies in `ratio`: what a crop falls back on."""
    height, width = size
    if width / height < ratio[0]:
        box_height, box_width = round(width / ratio[0]), width
    elif width / height > ratio[1]:
        box_height, box_width = height, round(height * ratio[1])
    else:
        box_height, box_width = height, width
    top, left = (height - box_height) // 2, (width - box_width) // 2
    return torch.tensor([top, left, box_height, box_width], dtype=torch.float32, device=device)


def _apply_geometry(unit: torch.Tensor, rounds: tuple[Round, ...]) -> None:
    height, width = unit.shape[2:]
    whole = torch.tensor([0.0, 0.0, height, width], device=rounds[0].crop.device)
    moved = torch.stack([(r.crop != whole).any(1) | r.flip | (r.angle != 0) for r in rounds]).any(0)
    rows = moved.nonzero()[:, 0]
    if not len(rows):
        return
    matrix = torch.eye(3, device=rows.device).expand(len(rows), 3, 3)
    for drawn in rounds:
        matrix = matrix @ _backward_map(drawn, rows, (height, width))
    theta, rows = matrix[:, :2].to(unit.device), rows.to(unit.device)
    grid = F.affine_grid(theta, [len(rows), 3, height, width], align_corners=False)
    unit[rows] = F.grid_sample(unit[rows], grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _backward_map(drawn: Round, rows: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(n, 3, 3): from output to input coordinates, both in [-1, 1], of crop, then flip, then rotation of one round."""
    height, width = size
    top, left, box_height, box_width = drawn.crop[rows].unbind(1)
    scale_x, scale_y = box_width / width, box_height / height
    shift_x = (2 * left + box_width) / width - 1
    shift_y = (2 * top + box_height) / height - 1
    mirror = torch.where(drawn.flip[rows], -1.0, 1.0)
    radians = torch.deg2rad(drawn.angle[rows])
    cos, sin = radians.cos(), radians.sin()
    # Turning is rigid in pixels, not in the square [-1, 1]: hence the aspect ratios. With y downwards, this turns the picture
    # counter-clockwise, because an output pixel looks up the input pixel that lies clockwise of it.
    row_x = [mirror * scale_x * cos, -mirror * scale_x * sin * (height / width), shift_x]
    row_y = [scale_y * sin * (width / height), scale_y * cos, shift_y]
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    return torch.stack([*row_x, *row_y, zero, zero, one], 1).view(-1, 3, 3)


def _luma(images: torch.Tensor) -> torch.Tensor:
    """(n, 3, H, W) -> (n, 1, H, W)."""
    red, green, blue = _LUMA
    return (images[:, 0:1] * red).add_(images[:, 1:2], alpha=green).add_(images[:, 2:3], alpha=blue)


def _apply_jitter(unit: torch.Tensor, drawn: Round) -> None:
    changed = (drawn.brightness != 1) | (drawn.contrast != 1) | (drawn.saturation != 1)
    rows = changed.nonzero()[:, 0]
    if not len(rows):
        return
    brightness, contrast, saturation = (
        factor[rows].to(unit.device).view(-1, 1, 1, 1) for factor in (drawn.brightness, drawn.contrast, drawn.saturation)
    )
    rows = rows.to(unit.device)
    images = unit[rows].mul_(brightness).clamp_(0, 1)
    mean = _luma(images).mean((1, 2, 3), keepdim=True)
    images.mul_(contrast).add_(mean * (1 - contrast)).clamp_(0, 1)
    grey = _luma(images).mul_(1 - saturation)
    unit[rows] = images.mul_(saturation).add_(grey).clamp_(0, 1)


def _apply_grayscale(unit: torch.Tensor, drawn: Round) -> None:
    rows = drawn.grayscale.nonzero()[:, 0].to(unit.device)
    if len(rows):
        unit[rows] = _luma(unit[rows]).expand(-1, 3, -1, -1)


def _apply_erasing(unit: torch.Tensor, drawn: Round) -> None:
    rows = (drawn.erase[:, 2] > 0).nonzero()[:, 0]
    if not len(rows):
        return
    top, left, box_height, box_width = drawn.erase[rows].to(unit.device).unbind(1)
    y, x = (torch.arange(length, device=unit.device) for length in unit.shape[2:])
    inside_y = (y >= top[:, None]) & (y < (top + box_height)[:, None])  # (n, H)
    inside_x = (x >= left[:, None]) & (x < (left + box_width)[:, None])  # (n, W)
    rows = rows.to(unit.device)
    unit[rows] = unit[rows].masked_fill_((inside_y[:, :, None] & inside_x[:, None, :])[:, None], 0.0)
