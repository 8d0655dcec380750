"""AutoAugment (ImageNet policy), RandAugment and TrivialAugment (Wide), with a separate policy drawn for every image of a batch.

Operations and strengths are those of torchvision's `AutoAugment`, `RandAugment` and `TrivialAugmentWide`. Kornia's classes are not
used: they draw one policy for the whole batch and have other strengths (shear 0.3 is 54 degrees, in torchvision 17; AutoAugment
posterises 8 bits to 7 where torchvision keeps 4, and always rotates the same way).

Units of strength: shear in pixels per pixel (from the top left corner), translation as a share of the side, rotation in degrees,
brightness, color, contrast and sharpness as factor 1 + strength, posterisation in bits, solarisation in levels of 255. Drawing
and applying are separate, and all random numbers come from the given generator.
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
# RandAugment and TrivialAugment use all operations but the last.
_DRAWABLE = 14

# Strength at magnitude 0, at the highest magnitude, and at TrivialAugment's highest magnitude, which is larger. A strength that is
# 0 at magnitude 0 gets a random sign.
_STRENGTHS: Mapping[str, tuple[float, float, float]] = {
    "shear_x": (0.0, 0.3, 0.99),
    "shear_y": (0.0, 0.3, 0.99),
    "translate_x": (0.0, 150 / 331, 32 / 224),  # torchvision: 32 pixels at any size; here 32/224 of the side
    "translate_y": (0.0, 150 / 331, 32 / 224),
    "rotate": (0.0, 30.0, 135.0),
    "brightness": (0.0, 0.9, 0.99),
    "color": (0.0, 0.9, 0.99),
    "contrast": (0.0, 0.9, 0.99),
    "sharpness": (0.0, 0.9, 0.99),
    "posterize": (8.0, 4.0, 2.0),
    "solarize": (255.0, 0.0, 0.0),
}
_MAGNITUDES = 30  # magnitudes of RandAugment and TrivialAugment: 0 .. 30

# (operation, probability, magnitude of 0..9), twice per sub-policy: the 25 that AutoAugment found on ImageNet.
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
class PolicyStep:
    """One operation per image for N images: position in `OPERATIONS`, and strength in the operation's unit."""

    operation: Int64[Tensor, " N"]
    strength: Float32[Tensor, " N"]


def draw_auto_augment(count: int, generator: torch.Generator) -> tuple[PolicyStep, ...]:
    """Draws two steps per image: the operations of one sub-policy, each applied with its probability."""
    device = generator.device
    numbers = [[(OPERATIONS.index(name), chance, step) for name, chance, step in sub] for sub in IMAGENET_POLICY]
    table = torch.tensor(numbers, dtype=torch.float64, device=device)  # (25, 2, 3)
    drawn = table[torch.randint(len(table), (count,), generator=generator, device=device)]
    applied = torch.rand(count, 2, generator=generator, device=device) < drawn[..., 1]
    operation = torch.where(applied, drawn[..., 0].long(), OPERATIONS.index("identity"))  # (N, 2)
    return _steps(operation, drawn[..., 2] / 9, generator)


def draw_rand_augment(count: int, operations: int, magnitude: int, generator: torch.Generator) -> tuple[PolicyStep, ...]:
    """Draws `operations` (N in the paper) steps, each one of the 14 operations, all at `magnitude` (M in the paper) of 0..30."""
    operation = torch.randint(_DRAWABLE, (count, operations), generator=generator, device=generator.device)
    fraction = torch.full_like(operation, magnitude, dtype=torch.float64) / _MAGNITUDES
    return _steps(operation, fraction, generator)


def draw_trivial_augment(count: int, generator: torch.Generator) -> tuple[PolicyStep, ...]:
    """Draws one step: one of the 14 operations at one of 31 magnitudes, with larger strengths than RandAugment's."""
    device = generator.device
    operation = torch.randint(_DRAWABLE, (count, 1), generator=generator, device=device)
    magnitude = torch.randint(_MAGNITUDES + 1, (count, 1), generator=generator, device=device)
    return _steps(operation, magnitude.double() / _MAGNITUDES, generator, wide=True)


def apply_policy(
    images: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"], steps: tuple[PolicyStep, ...]
) -> Float32[Tensor, "N 3 H W"]:
    """Applies steps one after another and returns images in [0, 1]; images with the same operation are processed together."""
    unit = as_unit(images)
    for step in steps:
        for position, name in enumerate(OPERATIONS):
            rows = (step.operation == position).nonzero()[:, 0]
            if name != "identity" and len(rows):
                there = send(rows, unit.device)
                unit[there] = _ACTIONS[name](unit[there], step.strength[rows]).clamp_(0, 1)
    return unit


def _steps(operation: Tensor, fraction: Tensor, generator: torch.Generator, *, wide: bool = False) -> tuple[PolicyStep, ...]:
    """Builds steps from operations and fractions of the highest magnitude, both (N, steps); draws the signs."""
    strengths = [_STRENGTHS.get(name, (0.0, 0.0, 0.0)) for name in OPERATIONS]
    low, moderate, widest = torch.tensor(strengths, dtype=torch.float64, device=operation.device).T
    high = widest if wide else moderate
    strength = low[operation] + (high - low)[operation] * fraction
    negative = torch.rand(operation.shape, generator=generator, device=operation.device) < 0.5
    strength = torch.where(negative & (low[operation] == 0), -strength, strength).float()
    return tuple(PolicyStep(operation[:, i], strength[:, i]) for i in range(operation.shape[1]))


def _shear_x(images: Tensor, slope: Tensor) -> Tensor:
    """Shears: an output pixel (x, y) takes the value at (x + slope y, y), counted from the top left corner."""
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
    """Returns (n, 2, 3) on the device of the images: the identity with these entries replaced."""
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
    """Stretches every channel to [0, 1]; a channel with a single value is unchanged."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def _equalize(images: Tensor, _: Tensor) -> Tensor:
    from kornia.enhance import equalize

    # Kornia truncates 255 x to a level: without the small offset, rounding errors would turn some n / 255 into n - 1.
    equalized: Tensor = equalize((_levels(images) + 1 / 64) / 255)
    return equalized


def _invert(images: Tensor, _: Tensor) -> Tensor:
    return 1 - images


def _levels(images: Tensor) -> Tensor:
    """Converts [0, 1] to the nearest whole levels of 0..255."""
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
