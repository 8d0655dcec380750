"""The views of self-supervision (SimCLR), batched: every image gets its own."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float, Float32, UInt8
from pydantic import Field, model_validator
from torch import Tensor

from tbps.config import Settings
from tbps.data.augment_image import PositiveRange, Probability, check_ranges, draw_crops, draw_uniform
from tbps.data.augment_round import Round, apply_rounds, neutral_round
from tbps.errors import SettingsError


class ViewAugmentation(Settings):
    """Strengths of a SimCLR view; the defaults are the paper's.

    Brightness, contrast, saturation and hue change together, with `jitter_probability`. `blur_sigma`: pixels.
    """

    crop_scale: PositiveRange = (0.2, 1.0)
    crop_ratio: PositiveRange = (3 / 4, 4 / 3)
    jitter_probability: Probability = 0.8
    brightness: Probability = 0.4
    contrast: Probability = 0.4
    saturation: Probability = 0.4
    hue: float = Field(default=0.1, ge=0, le=0.5)
    grayscale_probability: Probability = 0.2
    blur_probability: Probability = 0.5
    blur_sigma: PositiveRange = (0.1, 2.0)
    flip_probability: Probability = 0.5

    @model_validator(mode="after")
    def _ordered(self) -> "ViewAugmentation":
        check_ranges(self, ("crop_scale", "crop_ratio", "blur_sigma"))
        if self.crop_scale[1] > 1:
            raise SettingsError(f"view augmentation: crop_scale must not exceed 1, as {self.crop_scale[1]} does")
        return self


@torch.no_grad()
def simclr_view(
    images: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"], settings: ViewAugmentation, generator: torch.Generator
) -> Float32[Tensor, "N 3 H W"]:
    """uint8, or floats in [0, 1], to one view of each image: float32 in [0, 1], not yet normalised.

    A CPU generator serves images on any device. Two views are two calls with one generator.
    """
    return apply_rounds(images, (draw_view(images.shape[0], (images.shape[2], images.shape[3]), settings, generator),))


def draw_view(count: int, size: tuple[int, int], settings: ViewAugmentation, generator: torch.Generator) -> Round:
    """What happens to `count` images of (height, width) `size`: how many numbers are drawn depends on `count` alone."""

    def happens(probability: float) -> Tensor:
        return draw_uniform(count, 0, 1, generator) < probability

    crop = draw_crops(count, size, settings.crop_scale, settings.crop_ratio, generator)
    jittered = happens(settings.jitter_probability)

    def jitter(centre: float, strength: float) -> Tensor:
        return torch.where(jittered, draw_uniform(count, centre - strength, centre + strength, generator), centre)

    return replace(
        neutral_round(count, size, generator.device),
        crop=crop,
        brightness=jitter(1, settings.brightness),
        contrast=jitter(1, settings.contrast),
        saturation=jitter(1, settings.saturation),
        hue=jitter(0, settings.hue),
        grayscale=happens(settings.grayscale_probability),
        blur=torch.where(happens(settings.blur_probability), draw_uniform(count, *settings.blur_sigma, generator), 0.0),
        # Beyond three standard deviations a Gaussian has 0.3 % of its weight.
        blur_kernel=2 * math.ceil(3 * settings.blur_sigma[1]) + 1,
        flip=happens(settings.flip_probability),
    )
