"""The image augmentation of TBPS-CLIP and of its study, batched: every image gets its own operations with its own strengths.

Methods: the pool, all of the pool together, one operation alone, a published policy, or none.

    pool        crop       RandomResizedCrop: area `crop_scale` of the image, width/height log-uniform in `crop_ratio`
                erase      with probability: area `erase_area`, height/width log-uniform in `erase_ratio`, filled with black
                grayscale  with probability
                jitter     factors of brightness, contrast and saturation, uniform within 1 +- strength
                flip       horizontal, with probability
                rotation   around the centre, uniform in +-`rotation_degrees`, black outside
    not in it   blur       Gaussian of `blur_kernel` pixels, standard deviation uniform in `blur_sigma`
                hue        uniform in +-`hue` turns of the colour circle
                vertical_flip  with probability

Of the pool each image gets `pool_size` operations (the paper: two distinct ones; its code draws with replacement). Drawing
(`draw_rounds`) and applying (`augment_round.apply_rounds`) are apart: a round holds one operation for each image.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, get_args

import torch
from jaxtyping import Bool, Float, Float32, UInt8
from pydantic import Field, model_validator
from torch import Tensor

from tbps.config import Settings
from tbps.data.augment_policies import apply_policy, draw_auto_augment, draw_rand_augment, draw_trivial_augment
from tbps.data.augment_round import Round, apply_rounds, neutral_round
from tbps.errors import SettingsError

Method = Literal[
    "pool", "stacking", "none",
    "crop", "erase", "grayscale", "jitter", "flip", "rotation",
    "blur", "hue", "vertical_flip",
    "auto_augment", "rand_augment", "trivial_augment",
]  # fmt: skip
METHODS: tuple[Method, ...] = get_args(Method)
POOL: tuple[Method, ...] = ("crop", "erase", "grayscale", "jitter", "flip", "rotation")
SINGLE: tuple[Method, ...] = (*POOL, "blur", "hue", "vertical_flip")

# Attempts to fit a box of the drawn area and ratio into the image before giving up, as in torchvision.
_ATTEMPTS = 10

Probability = Annotated[float, Field(ge=0, le=1)]
PositiveRange = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class ImageAugmentation(Settings):
    """Method and strengths; the defaults are the paper's. `with_replacement` reproduces the reference code's draws of the pool."""

    enabled: bool = True
    method: Method = "pool"
    pool_size: int = Field(default=2, ge=0, le=len(POOL))
    with_replacement: bool = False
    crop_scale: PositiveRange = (0.9, 1.0)
    crop_ratio: PositiveRange = (3 / 4, 4 / 3)
    erase_probability: Probability = 0.5
    erase_area: PositiveRange = (0.1, 0.2)
    erase_ratio: PositiveRange = (0.3, 3.3)
    grayscale_probability: Probability = 0.1
    brightness: Probability = 0.1
    contrast: Probability = 0.1
    saturation: Probability = 0.1
    flip_probability: Probability = 0.5
    rotation_degrees: float = Field(default=15.0, ge=0, le=180)
    blur_kernel: Literal[3, 7, 11] = 3
    blur_sigma: PositiveRange = (0.1, 2.0)
    hue: float = Field(default=0.1, ge=0, le=0.5)
    vertical_flip_probability: Probability = 0.5
    rand_augment_operations: int = Field(default=2, ge=0)
    rand_augment_magnitude: int = Field(default=9, ge=0, le=30)

    @model_validator(mode="after")
    def _ordered(self) -> "ImageAugmentation":
        check_ranges(self, ("crop_scale", "crop_ratio", "erase_area", "erase_ratio", "blur_sigma"))
        if self.crop_scale[1] > 1 or self.erase_area[1] >= 1:
            raise SettingsError("image augmentation: crop_scale must not exceed 1 and erase_area must stay below 1")
        return self


def check_ranges(settings: Settings, names: Sequence[str]) -> None:
    """Raises SettingsError for the first of these (low, high) settings that falls."""
    for name in names:
        low, high = getattr(settings, name)
        if low > high:
            raise SettingsError(f"image augmentation: {name} = ({low}, {high}) must rise")


@torch.no_grad()
def augment_images(
    images: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"], settings: ImageAugmentation, generator: torch.Generator
) -> Float32[Tensor, "N 3 H W"]:
    """uint8, or floats in [0, 1], to float32 in [0, 1], augmented and not yet normalised.

    A CPU generator serves images on any device: the few parameters are drawn on the CPU and copied.
    """
    count = images.shape[0]
    if settings.enabled and settings.method == "auto_augment":
        return apply_policy(images, draw_auto_augment(count, generator))
    if settings.enabled and settings.method == "rand_augment":
        operations, magnitude = settings.rand_augment_operations, settings.rand_augment_magnitude
        return apply_policy(images, draw_rand_augment(count, operations, magnitude, generator))
    if settings.enabled and settings.method == "trivial_augment":
        return apply_policy(images, draw_trivial_augment(count, generator))
    return apply_rounds(images, draw_rounds(count, (images.shape[2], images.shape[3]), settings, generator))


def draw_rounds(count: int, size: tuple[int, int], settings: ImageAugmentation, generator: torch.Generator) -> tuple[Round, ...]:
    """The rounds of pool, stacking or one operation for `count` images of (height, width) `size`, on the generator's device.

    Empty for "none", when disabled, and for the policies, which are drawn in `augment_policies`.
    """
    return tuple(_draw_round(chosen, count, size, settings, generator) for chosen in _choose(count, settings, generator))


def _choose(count: int, settings: ImageAugmentation, generator: torch.Generator) -> list[dict[str, Bool[Tensor, " N"]]]:
    """For each round, which images get which operation."""
    device = generator.device
    every = torch.ones(count, dtype=torch.bool, device=device)
    if not settings.enabled:
        return []
    if settings.method == "pool":
        if settings.with_replacement:
            drawn = torch.randint(len(POOL), (count, settings.pool_size), generator=generator, device=device)
        else:
            drawn = torch.rand(count, len(POOL), generator=generator, device=device).argsort(1)[:, : settings.pool_size]
        return [{name: drawn[:, r] == i for i, name in enumerate(POOL)} for r in range(settings.pool_size)]
    if settings.method == "stacking":
        return [dict.fromkeys(POOL, every)]
    return [{settings.method: every}] if settings.method in SINGLE else []


def _draw_round(
    chosen: Mapping[str, Tensor], count: int, size: tuple[int, int], settings: ImageAugmentation, generator: torch.Generator
) -> Round:
    """Draws every operation of the pool for every image, then keeps the chosen, so that how many numbers are drawn never depends
    on the choice; those outside the pool are drawn where they are the method.
    """
    nothing = neutral_round(count, size, generator.device)

    def picked(name: Method) -> Tensor:
        return chosen.get(name, nothing.flip)

    def uniform(low: float, high: float) -> Tensor:
        return draw_uniform(count, low, high, generator)

    def jitter(strength: float) -> Tensor:
        return torch.where(picked("jitter"), uniform(1 - strength, 1 + strength), 1.0)

    crop = draw_crops(count, size, settings.crop_scale, settings.crop_ratio, generator)
    erase, erasable = _draw_boxes(count, size, settings.erase_area, settings.erase_ratio, generator)
    erased = erasable & (uniform(0, 1) < settings.erase_probability) & picked("erase")
    drawn = replace(
        nothing,
        crop=torch.where(picked("crop")[:, None], crop, nothing.crop),
        erase=torch.where(erased[:, None], erase, nothing.erase),
        grayscale=picked("grayscale") & (uniform(0, 1) < settings.grayscale_probability),
        brightness=jitter(settings.brightness),
        contrast=jitter(settings.contrast),
        saturation=jitter(settings.saturation),
        flip=picked("flip") & (uniform(0, 1) < settings.flip_probability),
        angle=torch.where(picked("rotation"), uniform(-settings.rotation_degrees, settings.rotation_degrees), 0.0),
    )
    if "blur" in chosen:
        return replace(drawn, blur=uniform(*settings.blur_sigma), blur_kernel=settings.blur_kernel)
    if "hue" in chosen:
        return replace(drawn, hue=uniform(-settings.hue, settings.hue))
    if "vertical_flip" in chosen:
        return replace(drawn, vertical_flip=uniform(0, 1) < settings.vertical_flip_probability)
    return drawn


def draw_uniform(count: int, low: float, high: float, generator: torch.Generator) -> Float32[Tensor, " N"]:
    """`count` numbers in [low, high), on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low


def draw_crops(
    count: int, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Float32[Tensor, "N 4"]:
    """Boxes (top, left, height, width) of a RandomResizedCrop: share `scale` of the area, width/height within `ratio`.

    Where none of ten draws fits, the largest central box within `ratio`, as in torchvision. Ratios are of pixels: with the
    paper's scale and ratio nothing ever fits into images narrower than 0.67 (0.9 * 3/4) of their height.
    """
    boxes, fits = _draw_boxes(count, size, scale, (1 / ratio[1], 1 / ratio[0]), generator)
    return torch.where(fits[:, None], boxes, _central_crop(size, ratio, generator.device))


def _draw_boxes(
    count: int, size: tuple[int, int], area: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(N, 4) boxes of whole pixels with that share of the area and that height/width; (N,) bool: did one of ten draws fit."""
    height, width = size

    def uniform() -> Tensor:
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


def _central_crop(size: tuple[int, int], ratio: tuple[float, float], device: torch.device) -> Tensor:
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
