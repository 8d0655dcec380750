"""AutoAugment (ImageNet policy), RandAugment and TrivialAugment (Wide), with a policy drawn for every image of a batch.

Operations and strengths are those of torchvision's `AutoAugment`, `RandAugment` and `TrivialAugmentWide`. The policies that
ship with Kornia are not used: they draw one policy for the whole batch, and differ in strength (its shear 0.3 is 54 degrees,
torchvision's 17; its AutoAugment posterises 8 bits to 7 where torchvision keeps 4, and always turns the same way).

Strengths: shear in pixels a pixel (from the top left corner), translation as a share of the side, rotation in degrees,
brightness, color, contrast and sharpness as 1 + strength of the factor, posterisation in bits, solarisation in levels of 255.
Drawing and applying are apart, and all numbers come from the given generator.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from tbps.data.augment.apply import apply_rounds, as_unit, resample
from tbps.data.augment.rounds import Round, neutral_round
from tbps.transfer import send

OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness",
    "posterize", "solarize", "auto_contrast", "equalize", "invert",
)  # fmt: skip
# RandAugment and TrivialAugment draw from all but the last.
_DRAWABLE = 14

# Strength at magnitude 0 and at the highest magnitude. Every strength that starts at 0 gets a random sign.
_Scale = Mapping[str, tuple[float, float]]
_MODERATE: _Scale = {
    "shear_x": (0.0, 0.3),
    "shear_y": (0.0, 0.3),
    "translate_x": (0.0, 150 / 331),
    "translate_y": (0.0, 150 / 331),
    "rotate": (0.0, 30.0),
    "brightness": (0.0, 0.9),
    "color": (0.0, 0.9),
    "contrast": (0.0, 0.9),
    "sharpness": (0.0, 0.9),
    "posterize": (8.0, 4.0),
    "solarize": (255.0, 0.0),
}
_WIDE: _Scale = {
    "shear_x": (0.0, 0.99),
    "shear_y": (0.0, 0.99),
    "translate_x": (0.0, 32 / 224),  # torchvision: 32 pixels, whatever the size; here of a picture 224 pixels wide
    "translate_y": (0.0, 32 / 224),
    "rotate": (0.0, 135.0),
    "brightness": (0.0, 0.99),
    "color": (0.0, 0.99),
    "contrast": (0.0, 0.99),
    "sharpness": (0.0, 0.99),
    "posterize": (8.0, 2.0),
    "solarize": (255.0, 0.0),
}
_MAGNITUDES = 30  # of RandAugment and TrivialAugment, from 0

# (operation, probability, magnitude of 0..9), twice: AutoAugment's 25 sub-policies found on ImageNet.
IMAGENET_POLICY = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
    (("color", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation for each of N images: its position in `OPERATIONS`, and its strength in its own unit."""

    operation: Int64[Tensor, " N"]
    strength: Float32[Tensor, " N"]


def draw_auto_augment(count: int, generator: torch.Generator) -> tuple[Step, ...]:
    """Two steps: the operations of one sub-policy, each applied with its probability."""
    device = generator.device
    numbers = [[(OPERATIONS.index(name), chance, step) for name, chance, step in sub] for sub in IMAGENET_POLICY]
    table = torch.tensor(numbers, dtype=torch.float64, device=device)  # (25, 2, 3)
    drawn = table[torch.randint(len(table), (count,), generator=generator, device=device)]
    applied = torch.rand(count, 2, generator=generator, device=device) < drawn[..., 1]
    operation = torch.where(applied, drawn[..., 0].long(), OPERATIONS.index("identity"))  # (N, 2)
    return _steps(operation, drawn[..., 2] / 9, _MODERATE, generator)


def draw_rand_augment(count: int, operations: int, magnitude: int, generator: torch.Generator) -> tuple[Step, ...]:
    """`operations` (N in the paper) steps, each any of the 14 operations, at the same `magnitude` (M) of 0..30."""
    operation = torch.randint(_DRAWABLE, (count, operations), generator=generator, device=generator.device)
    fraction = torch.full_like(operation, magnitude, dtype=torch.float64) / _MAGNITUDES
    return _steps(operation, fraction, _MODERATE, generator)


def draw_trivial_augment(count: int, generator: torch.Generator) -> tuple[Step, ...]:
    """One step: any of the 14 operations, at any of 31 magnitudes that reach further than RandAugment's."""
    device = generator.device
    operation = torch.randint(_DRAWABLE, (count, 1), generator=generator, device=device)
    magnitude = torch.randint(_MAGNITUDES + 1, (count, 1), generator=generator, device=device)
    return _steps(operation, magnitude.double() / _MAGNITUDES, _WIDE, generator)


def apply_policy(
    images: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"], steps: tuple[Step, ...]
) -> Float32[Tensor, "N 3 H W"]:
    """The images in [0, 1] with the steps applied one after another; those that drew the same operation are treated together."""
    unit = as_unit(images)
    for step in steps:
        for position, name in enumerate(OPERATIONS):
            rows = (step.operation == position).nonzero()[:, 0]
            if name != "identity" and len(rows):
                there = send(rows, unit.device)
                unit[there] = _ACTIONS[name](unit[there], step.strength[rows]).clamp_(0, 1)
    return unit


def _steps(operation: Tensor, fraction: Tensor, scale: _Scale, generator: torch.Generator) -> tuple[Step, ...]:
    """operation, fraction (of the highest magnitude): (N, steps). Draws the signs."""
    low, high = torch.tensor([scale.get(name, (0.0, 0.0)) for name in OPERATIONS], dtype=torch.float64, device=operation.device).T
    strength = low[operation] + (high - low)[operation] * fraction
    negative = torch.rand(operation.shape, generator=generator, device=operation.device) < 0.5
    strength = torch.where(negative & (low[operation] == 0), -strength, strength).float()
    return tuple(Step(operation[:, i], strength[:, i]) for i in range(operation.shape[1]))


def _shear_x(images: Tensor, slope: Tensor) -> Tensor:
    """An output pixel (x, y) looks up (x + slope y, y), counted from the top left corner."""
    height, width = images.shape[2:]
    lean = slope * height / width
    return resample(images, _map({(0, 1): lean, (0, 2): lean}, images))


def _shear_y(images: Tensor, slope: Tensor) -> Tensor:
    height, width = images.shape[2:]
    lean = slope * width / height
    return resample(images, _map({(1, 0): lean, (1, 2): lean}, images))


def _translate_x(images: Tensor, share: Tensor) -> Tensor:
    return resample(images, _map({(0, 2): -2 * share}, images))


def _translate_y(images: Tensor, share: Tensor) -> Tensor:
    return resample(images, _map({(1, 2): -2 * share}, images))


def _map(entries: Mapping[tuple[int, int], Tensor], images: Tensor) -> Tensor:
    """(n, 2, 3), where the images are: the identity with these entries replaced."""
    backward = torch.eye(2, 3).repeat(len(images), 1, 1)
    for (row, column), values in entries.items():
        backward[:, row, column] = values
    return send(backward, images.device)


def _neutral(images: Tensor) -> Round:
    return neutral_round(len(images), (images.shape[2], images.shape[3]))


def _rotate(images: Tensor, degrees: Tensor) -> Tensor:
    return apply_rounds(images, (replace(_neutral(images), angle=degrees),))


def _brightness(images: Tensor, strength: Tensor) -> Tensor:
    return apply_rounds(images, (replace(_neutral(images), brightness=1 + strength),))


def _color(images: Tensor, strength: Tensor) -> Tensor:
    return apply_rounds(images, (replace(_neutral(images), saturation=1 + strength),))


def _contrast(images: Tensor, strength: Tensor) -> Tensor:
    return apply_rounds(images, (replace(_neutral(images), contrast=1 + strength),))


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    from kornia.enhance import sharpness  # a slow import

    sharpened: Tensor = sharpness(images, send(1 + strength, images.device))
    return sharpened


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    step = send(2 ** (8 - bits.round()), images.device).view(-1, 1, 1, 1)
    return (_levels(images) / step).floor() * step / 255


def _solarize(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(_levels(images) >= send(threshold, images.device).view(-1, 1, 1, 1), 1 - images, images)


def _auto_contrast(images: Tensor, _: Tensor) -> Tensor:
    """Every channel stretched to [0, 1]; one of a single value stays as it is."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    from kornia.enhance import equalize

    # Kornia cuts 255 x down to a level: without the small excess, rounding would turn some level n / 255 into n - 1.
    equalized: Tensor = equalize((_levels(images) + 1 / 64) / 255)
    return equalized


def _invert(images: Tensor, _: Tensor) -> Tensor:
    return 1 - images


def _levels(images: Tensor) -> Tensor:
    """The nearest whole numbers of 0..255."""
    return (images * 255).round()


_ACTIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": _brightness,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": _invert,
}
