import math

import numpy as np
import pytest
import torch
from kornia.augmentation.auto.autoaugment.autoaugment import imagenet_policy
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from tbps.data.augment.policies import (
    IMAGENET_POLICY,
    OPERATIONS,
    PolicyStep,
    apply_policy,
    draw_auto_augment,
    draw_rand_augment,
    draw_trivial_augment,
)

SIZE = (48, 32)
LEVEL = 1 / 255


def photos(count: int = 2, seed: int = 0) -> torch.Tensor:
    """(N, 3, H, W) uint8, smooth."""
    noise = torch.rand(count, 3, 6, 6, generator=seeded(seed))
    smooth = torch.nn.functional.interpolate(noise, size=SIZE, mode="bicubic", align_corners=False)
    return (smooth * 200 + 20).clamp(0, 255).round().to(torch.uint8)


def noise(count: int = 2) -> torch.Tensor:
    """(N, 3, H, W) uint8 with every level."""
    return torch.randint(0, 256, (count, 3, *SIZE), generator=seeded(1), dtype=torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def applied(images: torch.Tensor, name: str, *strengths: float) -> torch.Tensor:
    operation = torch.full((len(strengths),), OPERATIONS.index(name))
    return apply_policy(images, (PolicyStep(operation, torch.tensor(strengths)),))


def to_pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def sheared_x(image: Image.Image, slope: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, (1, slope, 0, 0, 1, 0), Image.Resampling.BILINEAR)


def sheared_y(image: Image.Image, slope: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, (1, 0, 0, slope, 1, 0), Image.Resampling.BILINEAR)


def moved_right(image: Image.Image, share: float) -> Image.Image:
    shift = -share * image.width
    return image.transform(image.size, Image.Transform.AFFINE, (1, 0, shift, 0, 1, 0), Image.Resampling.BILINEAR)


def moved_down(image: Image.Image, share: float) -> Image.Image:
    shift = -share * image.height
    return image.transform(image.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, shift), Image.Resampling.BILINEAR)


def turned(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BILINEAR)


@pytest.mark.parametrize(
    ("name", "oracle", "strengths"),
    [
        ("shear_x", sheared_x, (0.3, -0.1)),
        ("shear_y", sheared_y, (0.2, -0.3)),
        ("translate_x", moved_right, (0.25, -0.45)),
        ("translate_y", moved_down, (0.25, -0.1)),
        ("rotate", turned, (30.0, -9.0)),
    ],
)
def test_geometry_equals_pil(name: str, oracle: object, strengths: tuple[float, float]) -> None:
    images = photos()
    result = applied(images, name, *strengths)
    for image, strength, moved in zip(images, strengths, result, strict=True):
        difference = (moved - from_pil(oracle(to_pil(image), strength))).abs()  # type: ignore[operator]
        assert difference.median() < LEVEL
        assert difference.quantile(0.9) < 2 * LEVEL  # the two differ only in how they blend with the black border


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("color", ImageEnhance.Color),
        ("contrast", ImageEnhance.Contrast),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_colour_and_sharpness_equal_pil(name: str, enhancer: type) -> None:
    images, strengths = noise(), (0.9, -0.63)
    for image, strength, result in zip(images, strengths, applied(images, name, *strengths), strict=True):
        assert (result - from_pil(enhancer(to_pil(image)).enhance(1 + strength))).abs().max() < 2 * LEVEL


def test_operations_on_levels_equal_pil_exactly() -> None:
    images = noise()
    first, second = to_pil(images[0]), to_pil(images[1])
    for result, *oracle in (
        (applied(images, "posterize", 4.0, 6.8), ImageOps.posterize(first, 4), ImageOps.posterize(second, 7)),
        (applied(images, "posterize", 2.0, 8.0), ImageOps.posterize(first, 2), second),
        (applied(images, "solarize", 178.5, 0.0), ImageOps.solarize(first, 178.5), ImageOps.invert(second)),
        (applied(images, "solarize", 238.0, 255.0), ImageOps.solarize(first, 238), ImageOps.solarize(second, 255)),
        (applied(images, "invert", 0.0, 0.0), ImageOps.invert(first), ImageOps.invert(second)),
        (applied(images, "equalize", 0.0, 0.0), ImageOps.equalize(first), ImageOps.equalize(second)),
        (applied(images, "identity", 0.0, 0.0), first, second),
    ):
        assert torch.allclose(result, torch.stack([from_pil(picture) for picture in oracle]), atol=1e-6)


def test_auto_contrast_and_equalize_of_narrow_and_flat_channels_equal_pil() -> None:
    narrow = (noise(2) // 4) + 60
    narrow[1, 2] = 77  # one channel of one value
    for name, oracle in (("auto_contrast", ImageOps.autocontrast), ("equalize", ImageOps.equalize)):
        for image, result in zip(narrow, applied(narrow, name, 0.0, 0.0), strict=True):
            assert (result - from_pil(oracle(to_pil(image)))).abs().max() < 1.01 * LEVEL


def test_the_imagenet_policy_is_the_published_one() -> None:
    published = [[(name, chance, magnitude or 0) for name, chance, magnitude in pair] for pair in imagenet_policy]
    assert [list(pair) for pair in IMAGENET_POLICY] == published


def chosen(steps: tuple[PolicyStep, ...], name: str) -> torch.Tensor:
    """Returns the strengths of the images that drew this operation, over all steps."""
    return torch.cat([step.strength[step.operation == OPERATIONS.index(name)] for step in steps])


def test_auto_augment_draws_pairs_probabilities_magnitudes_and_signs() -> None:
    count = 40_000
    first, second = draw_auto_augment(count, seeded())
    for i, step in enumerate((first, second)):
        for name in OPERATIONS[1:]:
            expected = sum(pair[i][1] for pair in IMAGENET_POLICY if pair[i][0] == name) / len(IMAGENET_POLICY)
            share = (step.operation == OPERATIONS.index(name)).float().mean().item()
            assert abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / count), (name, share, expected)
    # A shear is always followed by equalisation: both operations are from one sub-policy.
    assert (second.operation[first.operation == OPERATIONS.index("shear_x")] == OPERATIONS.index("equalize")).all()
    tenths = {round(abs(s), 3) for s in chosen((first, second), "rotate").tolist()}
    assert tenths == {10.0, round(80 / 3, 3), 30.0}
    assert {round(s) for s in chosen((first, second), "posterize").tolist()} == {4, 5, 6}
    assert {round(s) for s in chosen((first, second), "solarize").tolist()} == {28, 57, 113, 142, 170}
    assert abs((chosen((first, second), "rotate") > 0).float().mean() - 0.5) < 0.03


def test_rand_augment_draws_uniformly_at_one_magnitude() -> None:
    steps = draw_rand_augment(28_000, 2, 9, seeded())
    for step in steps:
        assert stats.chisquare(np.bincount(step.operation.numpy(), minlength=15)[:14]).pvalue > 1e-4
        assert step.operation.max() < 14, "RandAugment does not invert"
    expected = {"shear_x": 0.09, "rotate": 9.0, "contrast": 0.27, "translate_y": 0.3 * 150 / 331}
    for name, strength in expected.items():
        drawn = chosen(steps, name)
        assert torch.allclose(drawn.abs(), torch.tensor(strength))
        assert abs((drawn > 0).float().mean() - 0.5) < 0.05
    assert (chosen(steps, "posterize").round() == 7).all()
    assert (chosen(steps, "solarize") == 178.5).all()
    assert len(draw_rand_augment(4, 3, 9, seeded())) == 3
    both = torch.stack([step.operation for step in steps])
    assert stats.chi2_contingency(np.histogram2d(*both.numpy(), bins=14)[0]).pvalue > 1e-4, "steps are independent"


def test_trivial_augment_draws_operation_and_magnitude_uniformly() -> None:
    (step,) = draw_trivial_augment(60_000, seeded())
    assert stats.chisquare(np.bincount(step.operation.numpy(), minlength=15)[:14]).pvalue > 1e-4
    turns = chosen((step,), "rotate")
    assert set((turns.abs() / 4.5).round().int().tolist()) == set(range(31))
    assert turns.abs().max() == 135
    assert stats.chisquare(np.bincount((turns.abs() / 4.5).round().int().numpy(), minlength=31)).pvalue > 1e-4
    assert set(chosen((step,), "posterize").round().int().tolist()) == set(range(2, 9))
    assert chosen((step,), "color").abs().max() == pytest.approx(0.99)
    assert chosen((step,), "translate_x").abs().max() == pytest.approx(32 / 224)


def test_a_batch_equals_its_images_one_by_one() -> None:
    images = photos(24)
    steps = draw_auto_augment(24, seeded(2)) + draw_trivial_augment(24, seeded(3))
    together = apply_policy(images, steps)
    for i in range(24):
        alone = tuple(PolicyStep(step.operation[i : i + 1], step.strength[i : i + 1]) for step in steps)
        difference = (apply_policy(images[i : i + 1], alone)[0] - together[i]).abs()
        assert (difference > 1e-5).float().mean() < 1e-3  # a value between two levels may round either way
