"""Image augmentation of TBPS-CLIP and of its ablation study, on batches: each image gets its own operations and strengths.

Methods are the pool, the whole pool at once ("stacking"), one operation alone, a published policy, or "none".

    pool        crop       RandomResizedCrop: area `crop_scale` of the image, width/height log-uniform in `crop_ratio`
                erase      with probability: area `erase_area`, height/width log-uniform in `erase_ratio`, filled with black
                grayscale  with probability
                jitter     factors of brightness, contrast and saturation, uniform within 1 +- strength
                flip       horizontal, with probability
                rotation   around the centre, uniform in +-`rotation_degrees`, black outside
    not in it   blur       Gaussian of `blur_kernel` pixels, standard deviation uniform in `blur_sigma`
                hue        uniform in +-`hue` turns of the colour circle
                vertical_flip  with probability
    irra        IRRA's (`datasets/build.py` of its code): flip, then black padding of `padding` pixels and a random crop of the
                input size, then erase

From the pool each image gets `pool_size` operations, applied in the order drawn (the paper: two distinct ones; its code draws with
replacement). Drawing (`draw_rounds`) and applying (`apply.apply_rounds`) are separate; a round holds one operation per image.

`crop_ratio` is relative to the input: 1 keeps the input's own width / height, so that 3/4 to 4/3 means the same at 224x224 (the
reference) and at 384x128. For a square input it is the ratio in pixels, as in the reference. `erase_ratio` is in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, Float32, UInt8
from pydantic import Field, model_validator
from torch import Tensor

from tbps.config import Settings
from tbps.data.augment.apply import apply_rounds, operation_by_operation
from tbps.data.augment.boxes import BoxRange, Rule, Size, central_boxes, draw_boxes
from tbps.data.augment.policies import apply_policy, draw_auto_augment, draw_rand_augment, draw_trivial_augment
from tbps.data.augment.rounds import Round, neutral_round
from tbps.errors import SettingsError

ImageMethod = Literal[
    "pool", "stacking", "none",
    "crop", "erase", "grayscale", "jitter", "flip", "rotation",
    "blur", "hue", "vertical_flip",
    "auto_augment", "rand_augment", "trivial_augment", "irra",
]  # fmt: skip
METHODS: tuple[ImageMethod, ...] = get_args(ImageMethod)
POOL: tuple[ImageMethod, ...] = ("crop", "erase", "grayscale", "jitter", "flip", "rotation")
SINGLE: tuple[ImageMethod, ...] = (*POOL, "blur", "hue", "vertical_flip")

Probability = Annotated[float, Field(ge=0, le=1)]
PositiveRange = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class ImageAugmentation(Settings):
    """Method and strengths of image augmentation; the defaults are the paper's.

    `with_replacement`: draw operations of the pool with replacement, as the reference code does. `erase_fill`: colour of an erased
    box, in [0, 1] before normalisation. `padding`: pixels, for the method "irra". `order`: "drawn" applies the operations of an
    image in the order drawn; "fixed" applies all geometry first, then colours, blur and erasing. `boxes`: fallback if none of ten
    draws of a crop or an erased box fits into the input; with "torchvision", `crop_ratio` is in pixels too (`augment.boxes`).
    """

    earlier: ClassVar[Mapping[str, Any]] = {"padding": 10, "erase_fill": (0.0, 0.0, 0.0), "order": "fixed", "boxes": "torchvision"}

    enabled: bool = True
    """Whether images are augmented."""
    method: ImageMethod = "pool"
    """Method: "pool" draws `pool_size` operations per image, "stacking" applies all of the pool, others are single operations."""
    pool_size: int = Field(default=2, ge=0, le=len(POOL))
    """Operations that are drawn from the pool per image."""
    with_replacement: bool = False
    """Whether an operation may be drawn twice, as in the reference code."""
    crop_scale: PositiveRange = (0.9, 1.0)
    """Smallest and largest share of the image's area in a crop."""
    crop_ratio: PositiveRange = (3 / 4, 4 / 3)
    """Smallest and largest width / height of a crop, relative to the input's (see `boxes`)."""
    erase_probability: Probability = 0.5
    """Probability that a box is erased."""
    erase_area: PositiveRange = (0.1, 0.2)
    """Smallest and largest share of the image's area that is erased."""
    erase_ratio: PositiveRange = (0.3, 3.3)
    """Smallest and largest height / width of an erased box."""
    grayscale_probability: Probability = 0.1
    """Probability that an image becomes grey."""
    brightness: Probability = 0.1
    """Largest relative change of brightness."""
    contrast: Probability = 0.1
    """Largest relative change of contrast."""
    saturation: Probability = 0.1
    """Largest relative change of saturation."""
    flip_probability: Probability = 0.5
    """Probability of a horizontal flip."""
    rotation_degrees: float = Field(default=15.0, ge=0, le=180)
    """Largest rotation to either side, in degrees."""
    blur_kernel: Literal[3, 7, 11] = 3
    """Size of the Gaussian blur's kernel, in pixels."""
    blur_sigma: PositiveRange = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels."""
    hue: float = Field(default=0.1, ge=0, le=0.5)
    """Largest change of hue, as a share of the colour circle."""
    vertical_flip_probability: Probability = 0.5
    """Probability of a vertical flip."""
    rand_augment_operations: int = Field(default=2, ge=0)
    """Operations that RandAugment applies per image."""
    rand_augment_magnitude: int = Field(default=9, ge=0, le=30)
    """Strength of RandAugment's operations, of 30."""
    padding: int = Field(default=10, ge=0)
    """Pixels of padding before the crop of the method "irra"."""
    erase_fill: tuple[Probability, Probability, Probability] = (0.0, 0.0, 0.0)
    """Colour of erased boxes, in [0, 1] before normalisation."""
    order: Literal["drawn", "fixed"] = "drawn"
    """Order of an image's operations: "drawn", as they were drawn; "fixed", geometry, then colours, blur and erasing."""
    boxes: Rule = "fitting"
    """Rule if none of ten draws of a box fits: "fitting" draws among the boxes that fit; "torchvision" uses torchvision's fallback.

    With "torchvision", `crop_ratio` is a ratio of pixels.
    """

    @model_validator(mode="after")
    def _ordered(self) -> "ImageAugmentation":
        check_ranges(self, ("crop_scale", "crop_ratio", "erase_area", "erase_ratio", "blur_sigma"))
        if self.crop_scale[1] > 1 or self.erase_area[1] >= 1:
            raise SettingsError("image augmentation: crop_scale must not exceed 1 and erase_area must stay below 1")
        return self


def check_ranges(settings: Settings, names: Sequence[str]) -> None:
    """Checks (low, high) settings; raises SettingsError for the first one with low > high."""
    for name in names:
        low, high = getattr(settings, name)
        if low > high:
            raise SettingsError(f"image augmentation: {name} = ({low}, {high}); the first number must not exceed the second")


@torch.no_grad()
def augment_images(
    images: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"], settings: ImageAugmentation, generator: torch.Generator
) -> Float32[Tensor, "N 3 H W"]:
    """Augments images, uint8 or float in [0, 1], to float32 in [0, 1], before normalisation.

    A CPU generator works for images on any device: the few parameters are drawn on the CPU and copied.
    """
    count = images.shape[0]
    if settings.enabled and settings.method == "auto_augment":
        return apply_policy(images, draw_auto_augment(count, generator))
    if settings.enabled and settings.method == "rand_augment":
        operations, magnitude = settings.rand_augment_operations, settings.rand_augment_magnitude
        return apply_policy(images, draw_rand_augment(count, operations, magnitude, generator))
    if settings.enabled and settings.method == "trivial_augment":
        return apply_policy(images, draw_trivial_augment(count, generator))
    size = (images.shape[2], images.shape[3])
    rounds = draw_rounds(count, size, settings, generator)
    return apply_rounds(images, operation_by_operation(rounds, size) if settings.order == "fixed" else rounds)


def draw_rounds(count: int, size: tuple[int, int], settings: ImageAugmentation, generator: torch.Generator) -> tuple[Round, ...]:
    """Draws the rounds of augmentation for `count` images of (height, width) `size`, on the generator's device.

    Handles the pool, stacking, irra and single operations. Empty for "none", for disabled augmentation, and for the published
    policies, which `augment.policies` draws.
    """
    if settings.enabled and settings.method == "irra":
        return (_draw_irra(count, size, settings, generator),)
    return tuple(_draw_round(chosen, count, size, settings, generator) for chosen in _choose(count, settings, generator))


def _choose(count: int, settings: ImageAugmentation, generator: torch.Generator) -> list[dict[str, Bool[Tensor, " N"]]]:
    """Returns for each round which images get which operation."""
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
    """Draws one round: every operation of the pool for every image, of which only the chosen ones are kept.

    So the count of random numbers does not depend on the choice. Operations outside the pool are drawn only if they are the method.
    """
    nothing = neutral_round(count, size, generator.device)

    def picked(name: ImageMethod) -> Tensor:
        return chosen.get(name, nothing.flip)

    def uniform(low: float, high: float) -> Tensor:
        return draw_uniform(count, low, high, generator)

    def jitter(strength: float) -> Tensor:
        return torch.where(picked("jitter"), uniform(1 - strength, 1 + strength), 1.0)

    crop = draw_crops(count, size, settings.crop_scale, settings.crop_ratio, generator, settings.boxes)
    erase, erasable = _draw_erased(count, size, settings, generator)
    erased = erasable & (uniform(0, 1) < settings.erase_probability) & picked("erase")
    drawn = replace(
        nothing,
        crop=torch.where(picked("crop")[:, None], crop, nothing.crop),
        erase=torch.where(erased[:, None], erase, nothing.erase),
        erase_fill=settings.erase_fill,
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


def _draw_irra(count: int, size: tuple[int, int], settings: ImageAugmentation, generator: torch.Generator) -> Round:
    """Draws IRRA's augmentation. The crop of a padded image equals the image shifted by up to `padding` pixels, black outside."""
    nothing = neutral_round(count, size, generator.device)
    flip = draw_uniform(count, 0, 1, generator) < settings.flip_probability
    down, right = (
        torch.randint(2 * settings.padding + 1, (count,), generator=generator, device=generator.device) - settings.padding
        for _ in range(2)
    )
    erase, erasable = _draw_erased(count, size, settings, generator)
    erased = erasable & (draw_uniform(count, 0, 1, generator) < settings.erase_probability)
    # IRRA flips first, a round crops first: the crop of a flipped image is the crop from the other side of the image.
    place = torch.stack([down, torch.where(flip, -right, right)], 1)
    return replace(
        nothing,
        crop=torch.cat([place.float(), nothing.crop[:, 2:]], 1),
        flip=flip,
        erase=torch.where(erased[:, None], erase, nothing.erase),
        erase_fill=settings.erase_fill,
    )


def draw_uniform(count: int, low: float, high: float, generator: torch.Generator) -> Float32[Tensor, " N"]:
    """Draws `count` numbers in [low, high) on the generator's device."""
    return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low


def draw_crops(  # noqa: PLR0913 - one argument per property of a crop
    count: int,
    size: Size,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
    rule: Rule = "fitting",
    *,
    relative: bool = True,
) -> Float32[Tensor, "N 4"]:
    """Draws boxes (top, left, height, width) of a RandomResizedCrop: share `scale` of the area, width / height in `ratio`.

    `relative`: the ratio is a multiple of the input's own width / height. With the rule "torchvision" it is in pixels, and if none
    of ten draws fits, the box is the largest central one within the ratio (`augment.boxes`).
    """
    shape = (1 / ratio[1], 1 / ratio[0])
    wanted = BoxRange(scale, shape, relative and rule == "fitting", rule)
    boxes, fits = draw_boxes(count, size, wanted, generator)
    if rule == "fitting":
        return boxes
    return torch.where(fits[:, None], boxes, central_boxes(count, size, shape, generator.device))


def _draw_erased(
    count: int, size: tuple[int, int], settings: ImageAugmentation, generator: torch.Generator
) -> tuple[Float32[Tensor, "N 4"], Bool[Tensor, " N"]]:
    """Draws boxes to erase, and which of them fit; with the rule "torchvision" some may not."""
    return draw_boxes(count, size, BoxRange(settings.erase_area, settings.erase_ratio, rule=settings.boxes), generator)
