"""SimCLR views for self-supervision (SS-I), on batches: each image gets its own view.

The reference crops the image before resizing it to the input. It matters: of an image of 64 x 170 pixels, a box of 20 to 100 % of
the area with width / height from 3/4 to 4/3 shows about a third of the height; cut after resizing to a square, such a box shows
three quarters (`ViewAugmentation.source`).
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from tbps.config import Settings
from tbps.data.augment.apply import apply_rounds
from tbps.data.augment.boxes import Rule, Size
from tbps.data.augment.image import PositiveRange, Probability, check_ranges, draw_crops, draw_uniform
from tbps.data.augment.rounds import Round, neutral_round
from tbps.errors import SettingsError
from tbps.transfer import send


class ViewAugmentation(Settings):
    """Strengths of a SimCLR view; the defaults are the paper's.

    Brightness, contrast, saturation and hue change together, with `jitter_probability`. `blur_sigma`: pixels.

    `source`: picture that is cropped. "reference": the image in its own proportions, with `crop_ratio` in pixels; "squashed": the
    image resized to the input of the tower, with `crop_ratio` relative to the input's own width / height (`augment.image`).
    `boxes`: as in `ImageAugmentation`.
    """

    earlier: ClassVar[Mapping[str, Any]] = {"source": "squashed", "boxes": "torchvision"}

    source: Literal["reference", "squashed"] = "reference"
    """Picture that is cropped: "reference", in its own proportions; "squashed", resized to the tower's input."""
    boxes: Rule = "fitting"
    """Rule if none of ten crops fits: "fitting" draws among the boxes that fit; "torchvision" uses torchvision's fallback."""
    crop_scale: PositiveRange = (0.2, 1.0)
    """Smallest and largest share of the picture's area in a crop."""
    crop_ratio: PositiveRange = (3 / 4, 4 / 3)
    """Smallest and largest width / height of a crop; with "squashed", relative to the input's."""
    jitter_probability: Probability = 0.8
    """Probability that brightness, contrast, saturation and hue change, all together."""
    brightness: Probability = 0.4
    """Largest relative change of brightness."""
    contrast: Probability = 0.4
    """Largest relative change of contrast."""
    saturation: Probability = 0.4
    """Largest relative change of saturation."""
    hue: float = Field(default=0.1, ge=0, le=0.5)
    """Largest change of hue, as a share of the colour circle."""
    grayscale_probability: Probability = 0.2
    """Probability that a view becomes grey."""
    blur_probability: Probability = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: PositiveRange = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels."""
    flip_probability: Probability = 0.5
    """Probability of a horizontal flip."""

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
    """Draws one view of each image, uint8 or float in [0, 1], as float32 in [0, 1] before normalisation.

    The crop is cut from `images`, which have the size of the input. A CPU generator works for images on any device. For two views,
    call twice with the same generator.
    """
    return apply_rounds(images, (draw_view(images.shape[0], (images.shape[2], images.shape[3]), settings, generator),))


@torch.no_grad()
def simclr_view_of(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    size: tuple[int, int],
    settings: ViewAugmentation,
    generator: torch.Generator,
    device: torch.device,
) -> Float32[Tensor, "N 3 H W"]:
    """Like `simclr_view` for images in their own proportions; the views have (height, width) `size` and are on `device`.

    Boxes are cut out and resized on the CPU with antialiasing by Pillow; the other operations run on the device.
    """
    shapes = torch.tensor([picture.shape[:2] for picture in pictures], device=generator.device).view(-1, 2)
    drawn = draw_view(len(pictures), shapes, settings, generator)
    cut = torch.from_numpy(cut_out(pictures, drawn.crop.int().tolist(), size)).permute(0, 3, 1, 2)
    whole = neutral_round(len(pictures), size, generator.device).crop
    return apply_rounds(send(cut.contiguous(), device), (replace(drawn, crop=whole),))


def cut_out(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]], boxes: Sequence[Sequence[int]], size: tuple[int, int]
) -> UInt8[np.ndarray, "N H W 3"]:
    """Cuts a box (top, left, height, width) out of each image and resizes it bilinearly to (height, width) `size`.

    Pixels outside of the box have no influence.
    """
    cut = np.empty((len(pictures), *size, 3), dtype=np.uint8)

    def work(row: int) -> None:
        top, left, height, width = boxes[row]
        part = Image.fromarray(np.ascontiguousarray(pictures[row][top : top + height, left : left + width]))
        cut[row] = np.asarray(part.resize((size[1], size[0]), Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:  # Pillow releases the interpreter lock while it resizes
        list(pool.map(work, range(len(pictures))))
    return cut


def draw_view(count: int, size: Size, settings: ViewAugmentation, generator: torch.Generator) -> Round:
    """Draws the operations for `count` images of (height, width) `size`, one size for all or (N, 2).

    The number of random numbers depends on `count` only.
    """

    def happens(probability: float) -> Tensor:
        return draw_uniform(count, 0, 1, generator) < probability

    relative = settings.source == "squashed"
    crop = draw_crops(count, size, settings.crop_scale, settings.crop_ratio, generator, settings.boxes, relative=relative)
    jittered = happens(settings.jitter_probability)

    def jitter(centre: float, strength: float) -> Tensor:
        return torch.where(jittered, draw_uniform(count, centre - strength, centre + strength, generator), centre)

    return replace(
        neutral_round(count, (0, 0), generator.device),
        crop=crop,
        brightness=jitter(1, settings.brightness),
        contrast=jitter(1, settings.contrast),
        saturation=jitter(1, settings.saturation),
        hue=jitter(0, settings.hue),
        grayscale=happens(settings.grayscale_probability),
        blur=torch.where(happens(settings.blur_probability), draw_uniform(count, *settings.blur_sigma, generator), 0.0),
        # A Gaussian has 0.3 % of its weight beyond three standard deviations.
        blur_kernel=2 * math.ceil(3 * settings.blur_sigma[1]) + 1,
        flip=happens(settings.flip_probability),
    )
