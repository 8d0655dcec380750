import colorsys
import math
from dataclasses import replace

import kornia
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage, stats

from tbps.data.augment.apply import apply_rounds, as_unit, operation_by_operation, resample
from tbps.data.augment.image import METHODS, SINGLE, ImageAugmentation, augment_images, draw_crops, draw_rounds
from tbps.data.augment.rounds import BY_IMAGE, Round, neutral_round
from tbps.errors import SettingsError
from tbps.preprocess.image import CLIP_MEAN, CLIP_STD
from tbps.study.recipes import irra

SIZE = (96, 64)
PAPER = ImageAugmentation()


def photos(count: int = 4, size: tuple[int, int] = SIZE, seed: int = 0) -> torch.Tensor:
    """(N, 3, H, W) uint8 images over the full range, so smooth that a shift by half a pixel changes little."""
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(noise, size=size, mode="bicubic", align_corners=False)
    return (smooth * 255).clamp(0, 255).round().to(torch.uint8)


def only(count: int = 4, **values: torch.Tensor) -> Round:
    return replace(neutral_round(count, SIZE), **values)


def to_pil(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_neutral_rounds_and_disabled_settings_change_nothing() -> None:
    images = photos()
    expected = images.float() / 255
    assert torch.equal(apply_rounds(images, (neutral_round(4, SIZE),) * 3), expected)
    for off in (
        ImageAugmentation(enabled=False),
        ImageAugmentation(enabled=False, method="rand_augment"),
        ImageAugmentation(method="none"),
        ImageAugmentation(pool_size=0),
    ):
        assert torch.equal(augment_images(images, off, seeded()), expected)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_shape_range_input_and_global_random_state(method: str) -> None:
    settings = ImageAugmentation.parse({"method": method})
    images = photos(12, (40, 36))
    unit = images.float() / 255
    before, state = images.clone(), torch.get_rng_state()
    augmented = augment_images(images, settings, seeded(3))
    assert augmented.shape == images.shape
    assert augmented.dtype == torch.float32
    assert augmented.min() >= 0
    assert augmented.max() <= 1 + 1e-6
    assert torch.equal(images, before)

    copy = unit.clone()
    as_float = augment_images(unit, settings, seeded(3))
    assert torch.equal(unit, copy)
    if method == "none" or method.endswith("_augment"):
        assert torch.equal(as_float, augmented), "floats in [0, 1] and uint8 are the same picture"
    else:  # to the precision of uint8; `test_augment_opencv` has a tighter bound for each operation
        assert (as_float - augmented).abs().mean() < 0.5 / 255
        assert (as_float - augmented).abs().max() < 8 / 255
    assert torch.equal(augment_images(images, settings, seeded(3)), augmented)
    assert torch.equal(torch.get_rng_state(), state)
    if method != "none":
        assert not torch.equal(augment_images(images, settings, seeded(4)), augmented)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("none", "flip", "vertical_flip", "grayscale")])
def test_images_of_a_batch_get_their_own_strengths(method: str) -> None:
    same = photos(1, (40, 36)).expand(32, -1, -1, -1)
    augmented = augment_images(same, ImageAugmentation.parse({"method": method}), seeded(1))
    assert len({one.numpy().tobytes() for one in augmented}) > 5


def test_rotation_equals_kornia_and_has_the_direction_of_pil() -> None:
    images, angle = photos(), torch.tensor([15.0, -7.5, 0.0, 90.0])
    turned = apply_rounds(as_unit(images), (only(angle=angle),))
    oracle = kornia.geometry.transform.rotate(images.float() / 255, angle, mode="bilinear", padding_mode="zeros")
    assert (turned - oracle).abs().max() < 1e-3
    pil = from_pil(to_pil(images[0]).rotate(15, Image.Resampling.BILINEAR))
    for result in (turned, apply_rounds(images, (only(angle=angle),))):
        assert (result[0] - pil).abs().median() < 1 / 255
        assert result[0, :, 0, 0].max() == 0  # black corners


def test_sampling_equals_torchs_affine_grid() -> None:
    images, maps = photos().float() / 255, torch.rand(4, 2, 3, generator=seeded(3)) * 2 - 1
    grid = torch.nn.functional.affine_grid(maps, list(images.shape), align_corners=False)
    expected = torch.nn.functional.grid_sample(images, grid, align_corners=False)
    assert torch.allclose(resample(images, maps), expected, atol=1e-4)  # coordinates differ by 1e-7 of the side


def test_flip_is_exact() -> None:
    images = photos()
    flipped = apply_rounds(as_unit(images), (only(flip=torch.tensor([True, False, True, False])),))
    expected = images.float() / 255
    expected[[0, 2]] = expected[[0, 2]].flip(-1)
    assert torch.allclose(flipped, expected, atol=1e-5)


def test_vertical_flip_is_exact() -> None:
    images = photos()
    flipped = apply_rounds(as_unit(images), (only(vertical_flip=torch.tensor([True, False, True, False])),))
    expected = images.float() / 255
    expected[[0, 2]] = expected[[0, 2]].flip(-2)
    assert torch.allclose(flipped, expected, atol=1e-5)


@pytest.mark.parametrize("kernel", [3, 7, 11])
def test_blur_equals_scipys_truncated_gaussian(kernel: int) -> None:
    images, sigmas = photos(), (0.4, 2.0, 0.0, 1.1)
    blurred = apply_rounds(as_unit(images), (only(blur=torch.tensor(sigmas), blur_kernel=kernel),)).double().numpy()
    for image, sigma, result in zip(images.double().numpy() / 255, sigmas, blurred, strict=True):
        expected = image
        for axis in (1, 2) if sigma else ():
            expected = ndimage.gaussian_filter1d(expected, sigma, axis, mode="mirror", radius=kernel // 2)
        assert np.abs(result - expected).max() < 1e-5


def test_hue_equals_colorsys() -> None:
    images, turns = photos(4, (8, 6)), (0.1, -0.07, 0.0, 0.5)
    turned = apply_rounds(as_unit(images), (replace(neutral_round(4, (8, 6)), hue=torch.tensor(turns)),))
    for image, turn, result in zip(images.double() / 255, turns, turned, strict=True):
        for before, after in zip(image.flatten(1).T.tolist(), result.flatten(1).T.tolist(), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*before)
            assert after == pytest.approx(colorsys.hsv_to_rgb((h + turn) % 1, s, v), abs=1e-4)


def test_crop_equals_pillows_bilinear_resize_of_the_box() -> None:
    images = photos()
    boxes = torch.tensor([[0, 0, 92, 60], [4, 4, 90, 60], [3, 0, 80, 64], [0, 0, 96, 64]], dtype=torch.float32)
    for given in (images, as_unit(images)):
        for image, box, result in zip(images, boxes.tolist(), apply_rounds(given, (only(crop=boxes),)), strict=True):
            top, left, height, width = box
            oracle = to_pil(image).resize((64, 96), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
            inner = (result - from_pil(oracle))[:, 2:-2, 2:-2].abs()
            assert inner.max() < 1.5 / 255


def test_crop_then_flip_then_rotation_equals_three_single_steps() -> None:
    images = photos(1)
    box = torch.tensor([[4.0, 2.0, 88.0, 60.0]])
    angle, yes = torch.tensor([12.0]), torch.tensor([True])
    at_once = apply_rounds(as_unit(images), (only(1, crop=box, flip=yes, angle=angle),))
    steps = images
    for step in (only(1, crop=box), only(1, flip=yes), only(1, angle=angle)):
        steps = (apply_rounds(steps, (step,)) * 255).round().to(torch.uint8)
    inner = (at_once - steps.float() / 255)[:, :, 20:-20, 16:-16].abs()
    assert inner.mean() < 0.5 / 255  # sampling three times blurs slightly
    assert inner.max() < 6 / 255


def test_rounds_are_applied_one_after_another() -> None:
    """An operation that is drawn twice is applied twice."""
    images = as_unit(photos(2))
    yes = torch.tensor([True, True])
    assert torch.allclose(apply_rounds(images, (only(2, flip=yes),) * 2), images, atol=1e-5)
    turned = apply_rounds(images, (only(2, angle=torch.full((2,), 10.0)), only(2, angle=torch.full((2,), 4.0))))
    assert torch.allclose(turned, apply_rounds(images, (only(2, angle=torch.full((2,), 14.0)),)), atol=1e-3)
    left = torch.tensor([[0.0, 0.0, 96.0, 60.0]]).expand(2, 4)
    mirrored = apply_rounds(images, (only(2, crop=left), only(2, flip=yes)))
    assert torch.allclose(mirrored, apply_rounds(images, (only(2, crop=left),)).flip(-1), atol=1e-5)


def test_jitter_equals_kornia() -> None:
    images = photos()
    b, c, s = torch.tensor([1.1, 0.9, 1.0, 1.08]), torch.tensor([0.9, 1.1, 1.05, 1.0]), torch.tensor([1.1, 0.93, 1.0, 1.0])
    jittered = apply_rounds(as_unit(images), (only(brightness=b, contrast=c, saturation=s),))
    oracle = kornia.enhance.adjust_brightness_accumulative(images.float() / 255, b)
    oracle = kornia.enhance.adjust_contrast_with_mean_subtraction(oracle, c)
    oracle = kornia.enhance.adjust_saturation_with_gray_subtraction(oracle, s)
    assert torch.allclose(jittered, oracle, atol=1e-3)  # kornia rounds the weights of the grey image


@pytest.mark.parametrize(
    ("name", "enhancer"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
@pytest.mark.parametrize("factor", [0.9, 1.1, 1.4])
def test_each_jitter_equals_pil(name: str, enhancer: type, factor: float) -> None:
    images = photos(1)
    for given in (images, as_unit(images)):
        result = apply_rounds(given, (only(1, **{name: torch.tensor([factor])}),))[0]
        assert (result - from_pil(enhancer(to_pil(images[0])).enhance(factor))).abs().max() < 2 / 255


def test_grayscale_equals_kornia() -> None:
    images = photos()
    grey = apply_rounds(as_unit(images), (only(grayscale=torch.tensor([True, False, True, True])),))
    oracle = kornia.color.rgb_to_grayscale(images.float() / 255).expand(-1, 3, -1, -1)
    assert torch.allclose(grey[[0, 2, 3]], oracle[[0, 2, 3]], atol=1e-6)
    assert torch.equal(grey[1], images[1].float() / 255)


def test_erasing_blackens_exactly_the_box() -> None:
    images = photos().clamp(min=1)
    boxes = torch.tensor([[0, 0, 10, 20], [90, 60, 6, 4], [0, 0, 0, 0], [30, 5, 40, 50]], dtype=torch.float32)
    erased = apply_rounds(as_unit(images), (only(erase=boxes),)).numpy()
    expected = images.numpy().astype(np.float32) / 255
    expected[0, :, 0:10, 0:20] = 0
    expected[1, :, 90:96, 60:64] = 0
    expected[3, :, 30:70, 5:55] = 0
    assert np.allclose(erased, expected)


def row(drawn: Round, i: int) -> Round:
    return replace(drawn, **{name: getattr(drawn, name)[i : i + 1] for name in BY_IMAGE})


def test_a_batch_equals_its_samples_one_by_one() -> None:
    images = as_unit(photos(12))
    rounds = draw_rounds(12, SIZE, ImageAugmentation(pool_size=3, with_replacement=True), seeded(5))
    together = apply_rounds(images, rounds)
    for i in range(12):
        single = tuple(row(r, i) for r in rounds)
        assert torch.allclose(apply_rounds(images[i : i + 1], single)[0], together[i], atol=1e-6)
    assert together.min() >= 0
    assert together.max() <= 1


def test_same_generator_same_images() -> None:
    images = photos(8)
    assert torch.equal(augment_images(images, PAPER, seeded(3)), augment_images(images, PAPER, seeded(3)))
    assert not torch.equal(augment_images(images, PAPER, seeded(3)), augment_images(images, PAPER, seeded(4)))


def used(drawn: Round) -> torch.Tensor:
    """Returns (N, 9) bool: whether an operation of `SINGLE` visibly changes an image."""
    neutral = neutral_round(len(drawn.angle), SIZE)
    jitter = (drawn.brightness != 1) | (drawn.contrast != 1) | (drawn.saturation != 1)
    crop = (drawn.crop != neutral.crop).any(1)
    pool = [crop, drawn.erase[:, 2] > 0, drawn.grayscale, jitter, drawn.flip, drawn.angle != 0]
    return torch.stack([*pool, drawn.blur > 0, drawn.hue != 0, drawn.vertical_flip], 1)


CERTAIN = ImageAugmentation(
    grayscale_probability=1, flip_probability=1, erase_probability=1, crop_scale=(0.5, 0.6), vertical_flip_probability=1
)


@pytest.mark.parametrize("with_replacement", [False, True])
def test_two_of_six_operations_are_drawn_uniformly(with_replacement: bool) -> None:
    count = 12_000
    rounds = draw_rounds(count, SIZE, CERTAIN.override({"with_replacement": with_replacement}), seeded(1))
    chosen = torch.stack([used(r) for r in rounds])  # (2, N, 9)
    assert not chosen[..., 6:].any(), "blur, hue and vertical flip are not in the pool"
    assert (chosen.sum(2) == 1).float().mean() > 0.999
    which = chosen.int().argmax(2)
    same = (which[0] == which[1]).float().mean().item()
    if with_replacement:
        assert abs(same - 1 / 6) < 4 * math.sqrt(1 / 6 * 5 / 6 / count)
    else:
        assert same < 1e-3  # the first index means "none" only where no erasing box fitted
    for draw in which:
        assert stats.chisquare(np.bincount(draw.numpy(), minlength=6)).pvalue > 1e-4


def test_stacking_applies_all_six_operations_and_a_single_method_one() -> None:
    (drawn,) = draw_rounds(500, SIZE, CERTAIN.override({"method": "stacking"}), seeded())
    share = used(drawn).float().mean(0)
    assert (share[:6] > 0.98).all()  # for some images no erasing box fits
    assert (share[6:] == 0).all()
    for i, method in enumerate(SINGLE):
        (drawn,) = draw_rounds(500, SIZE, CERTAIN.override({"method": method}), seeded())
        share = used(drawn).float().mean(0)
        assert share[i] > 0.98
        assert share.sum() == share[i]


def test_strengths_of_operations_outside_the_pool() -> None:
    count = 20_000
    (blur,) = draw_rounds(count, SIZE, ImageAugmentation(method="blur", blur_kernel=7, blur_sigma=(0.5, 1.5)), seeded(1))
    assert blur.blur_kernel == 7
    assert stats.kstest(blur.blur.numpy(), stats.uniform(0.5, 1.0).cdf).pvalue > 1e-4
    (hue,) = draw_rounds(count, SIZE, ImageAugmentation(method="hue"), seeded(2))
    assert stats.kstest(hue.hue.numpy(), stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-4
    (flip,) = draw_rounds(count, SIZE, ImageAugmentation(method="vertical_flip"), seeded(3))
    assert abs(flip.vertical_flip.float().mean() - 0.5) < 4 * math.sqrt(0.25 / count)


def test_probabilities_and_ranges_of_the_paper() -> None:
    count = 30_000
    (drawn, *_) = draw_rounds(count, (96, 96), ImageAugmentation(pool_size=6), seeded(2))
    rounds = draw_rounds(count, (96, 96), ImageAugmentation(pool_size=6), seeded(2))
    share = torch.stack([used(r) for r in rounds]).any(0).float().mean(0)
    tolerance = 4 * math.sqrt(0.25 / count)
    assert abs(share[1] - 0.5) < tolerance  # erasing
    assert abs(share[2] - 0.1) < tolerance  # grayscale
    assert abs(share[4] - 0.5) < tolerance  # flip
    angles = torch.cat([r.angle[r.angle != 0] for r in rounds]).numpy()
    assert stats.kstest(angles, stats.uniform(-15, 30).cdf).pvalue > 1e-4
    for name in ("brightness", "contrast", "saturation"):
        factors = torch.cat([getattr(r, name)[getattr(r, name) != 1] for r in rounds]).numpy()
        assert stats.kstest(factors, stats.uniform(0.9, 0.2).cdf).pvalue > 1e-4
    assert len(drawn.angle) == count


def test_boxes_stay_inside_with_the_drawn_area_and_ratio() -> None:
    size = (128, 64)
    settings = ImageAugmentation(pool_size=6, crop_scale=(0.3, 0.5), erase_probability=1)
    rounds = draw_rounds(20_000, size, settings, seeded(3))
    for name, area, ratio in (("crop", (0.3, 0.5), (3 / 4, 4 / 3)), ("erase", (0.1, 0.2), (0.3, 3.3))):
        boxes = torch.cat([getattr(r, name) for r in rounds])
        boxes = boxes[(boxes[:, 2] > 0) & (boxes[:, 2:] != torch.tensor(size)).any(1)]
        top, left, height, width = boxes.unbind(1)
        assert torch.equal(boxes, boxes.round())
        assert (top >= 0).all()
        assert (left >= 0).all()
        assert (top + height <= size[0]).all()
        assert (left + width <= size[1]).all()
        assert len(boxes) > 15_000
        share = height * width / (size[0] * size[1])
        assert share.min() > area[0] - 0.03
        assert share.max() < area[1] + 0.03
        shape = 2 * width / height if name == "crop" else height / width  # crop_ratio is relative to the 1:2 input
        assert shape.min() > ratio[0] - 0.05
        assert shape.max() < ratio[1] + 0.3
        assert (top == 0).any()
        assert (top + height == size[0]).any()
    log_ratio = torch.cat([r.erase[r.erase[:, 2] > 0] for r in draw_rounds(20_000, (200, 200), settings, seeded(4))])
    logs = (log_ratio[:, 2] / log_ratio[:, 3]).log().numpy()
    assert abs(np.mean(logs) - (math.log(0.3) + math.log(3.3)) / 2) < 0.02


NARROW = [(384, 128), (224, 224), (96, 96), (256, 128), (128, 384)]


@pytest.mark.parametrize("size", NARROW)
@pytest.mark.parametrize("settings", [PAPER, CERTAIN, ImageAugmentation(crop_ratio=(0.5, 0.8), crop_scale=(0.9, 1))])
def test_every_crop_is_random_and_none_uses_the_fallback(size: tuple[int, int], settings: ImageAugmentation) -> None:
    """For any input size, width / height of a box is that of the input times a ratio within bounds; positions and areas vary."""
    low, high = settings.crop_ratio
    boxes = draw_crops(20_000, size, settings.crop_scale, settings.crop_ratio, seeded(1))
    top, left, height, width = boxes.unbind(1)
    share = height * width / (size[0] * size[1])
    shape = (width / height) / (size[1] / size[0])
    rounding = 0.6 / height + 0.6 / width  # half a pixel on either side
    assert (shape > low * (1 - rounding)).all() and (shape < high * (1 + rounding)).all()
    possible = min(settings.crop_scale[1], high, 1 / low)  # e.g. a box of ratio 0.8 and full height has 0.8 of the area
    least = min(settings.crop_scale[0], possible)
    assert (share > least * (1 - rounding)).all() and (share < possible * (1 + rounding)).all()
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= size[0]).all() and (left + width <= size[1]).all()
    central = ((top == (size[0] - height).div(2).floor()) & (left == (size[1] - width).div(2).floor())).float().mean()
    assert len(boxes.unique(dim=0)) > 15
    assert central < 0.2, "crops that could be elsewhere are mostly not central"


def test_for_a_square_input_a_draw_that_fits_equals_torchvisions() -> None:
    ours, theirs = (
        draw_crops(5_000, (224, 224), (0.9, 1.0), (3 / 4, 4 / 3), seeded(2), rule) for rule in ("fitting", "torchvision")
    )
    whole = (theirs == torch.tensor([0.0, 0.0, 224.0, 224.0])).all(1)
    assert 0.1 < whole.float().mean() < 0.2, "torchvision finds no box in one of seven draws, and then takes the whole input"
    assert torch.equal(ours[~whole], theirs[~whole])
    assert (ours[whole] != theirs[whole]).any(1).float().mean() > 0.95


@pytest.mark.parametrize("size", [*NARROW, (384, 32)])
@pytest.mark.parametrize("area", [(0.1, 0.2), (0.02, 0.4), (0.4, 0.5)])
def test_an_erased_box_always_fits(size: tuple[int, int], area: tuple[float, float]) -> None:
    settings = ImageAugmentation(method="erase", erase_probability=1, erase_area=area)
    (drawn,) = draw_rounds(5_000, size, settings, seeded(1))
    top, left, height, width = drawn.erase.unbind(1)
    assert (height > 0).all() and (top + height <= size[0]).all() and (left + width <= size[1]).all()
    rounding = 0.6 / height + 0.6 / width
    assert (height / width < 3.3 * (1 + rounding)).all() and (height / width > 0.3 * (1 - rounding)).all()
    share = height * width / (size[0] * size[1])
    least = min(area[0], 3.3 * size[1] / size[0])  # a narrow strip holds only smaller boxes of an allowed shape
    assert (share > least * (1 - rounding)).all() and (share < area[1] * (1 + rounding)).all()
    assert len(drawn.erase.unique(dim=0)) > 200


def test_with_torchvisions_rule_a_crop_that_fits_nowhere_is_central() -> None:
    """In a 1:10 strip no box of 90 % area has a ratio within [3/4, 4/3]; torchvision then takes the central 3:4."""
    strip = ImageAugmentation(pool_size=6, boxes="torchvision")
    boxes = torch.cat([r.crop for r in draw_rounds(50, (200, 20), strip, seeded())])
    changed = boxes[boxes[:, 2] != 200]
    assert len(changed) == 50
    assert (changed == torch.tensor([86.0, 0.0, 27.0, 20.0])).all()


IRRA = irra().image_augmentation


def moved_as_irra_does(image: np.ndarray, flip: bool, top: int, left: int) -> np.ndarray:
    """Applies IRRA's flip, padding by ten black pixels and crop of the original size at (top, left) to (H, W, 3) floats."""
    height, width = image.shape[:2]
    flipped = image[:, ::-1] if flip else image
    return np.pad(flipped, ((10, 10), (10, 10), (0, 0)))[top : top + height, left : left + width]


@pytest.mark.parametrize("as_bytes", [True, False])
def test_irras_augmentation_is_flip_pad_crop_and_erase(as_bytes: bool) -> None:
    """Compares every image with the drawn operations applied in NumPy. Erased boxes get CLIP's mean colour after normalisation."""
    count, size = 24, (384, 128)
    images = photos(count, size)
    (drawn,) = draw_rounds(count, size, IRRA, seeded(4))
    result = augment_images(images if as_bytes else as_unit(images), IRRA, seeded(4))
    colour = np.array(CLIP_MEAN) * np.array(CLIP_STD) + np.array(CLIP_MEAN)
    for i, (image, out) in enumerate(zip(images, result, strict=True)):
        flip, (down, right) = bool(drawn.flip[i]), drawn.crop[i, :2].int().tolist()
        place = (10 + down, 10 + (-right if flip else right))
        expected = moved_as_irra_does(image.permute(1, 2, 0).numpy() / 255, flip, *place)
        top, left, height, width = drawn.erase[i].int().tolist()
        expected[top : top + height, left : left + width] = colour
        assert np.abs(out.permute(1, 2, 0).numpy() - expected).max() < 1e-4
        normalised = (colour - CLIP_MEAN) / np.array(CLIP_STD)
        assert normalised == pytest.approx(CLIP_MEAN)


def test_draws_have_the_probabilities_of_irra() -> None:
    count = 20_000
    (drawn,) = draw_rounds(count, (384, 128), IRRA, seeded(5))
    tolerance = 4 * math.sqrt(0.25 / count)
    assert abs(drawn.flip.float().mean() - 0.5) < tolerance and abs((drawn.erase[:, 2] > 0).float().mean() - 0.5) < tolerance
    for axis in (0, 1):
        assert stats.chisquare(np.bincount(drawn.crop[:, axis].int().numpy() + 10, minlength=21)).pvalue > 1e-4
    assert torch.equal(drawn.crop[:, 2:].unique(dim=0), torch.tensor([[384.0, 128.0]]))
    boxes = drawn.erase[drawn.erase[:, 2] > 0]
    share = boxes[:, 2] * boxes[:, 3] / (384 * 128)
    assert 0.019 < share.min() < 0.03 and 0.38 < share.max() < 0.41
    assert boxes[:, 0].max() > 300, "boxes reach the feet, not only the torso"
    neutral = neutral_round(1, (384, 128))
    assert not drawn.grayscale.any() and (drawn.angle == 0).all() and torch.equal(drawn.brightness[:1], neutral.brightness)


ONE = {
    "crop": {"crop": torch.tensor([[6.0, 4.0, 80.0, 52.0]])},
    "erase": {"erase": torch.tensor([[20.0, 10.0, 40.0, 30.0]])},
    "grayscale": {"grayscale": torch.tensor([True])},
    "jitter": {"brightness": torch.tensor([1.1]), "contrast": torch.tensor([0.9]), "saturation": torch.tensor([1.1])},
    "flip": {"flip": torch.tensor([True])},
    "rotation": {"angle": torch.tensor([12.0])},
}


@pytest.mark.parametrize("second", ONE)
@pytest.mark.parametrize("first", ONE)
def test_operations_are_applied_in_the_order_drawn(first: str, second: str) -> None:
    """Two rounds are applied one after the other: erased boxes rotate, black corners are brightened."""
    images = photos(1).clamp(min=60)
    one, two = only(1, **ONE[first]), only(1, **ONE[second])
    stepwise = apply_rounds(apply_rounds(as_unit(images), (one,)), (two,))
    at_once = apply_rounds(as_unit(images), (one, two))
    geometry = {"crop", "flip", "rotation"}
    if {first, second} <= geometry and first != second:
        inner = (at_once - stepwise)[:, :, 20:-20, 16:-16].abs()
        assert inner.mean() < 0.5 / 255  # sampled once, not twice
    elif first != second:
        assert torch.allclose(at_once, stepwise, atol=1e-6)
    bytewise = apply_rounds(images, (one, two))
    assert (bytewise - at_once).abs().mean() < 0.5 / 255


def test_the_order_of_erasing_and_rotation_matters() -> None:
    images = as_unit(photos(1).clamp(min=60))
    erase, turn = only(1, **ONE["erase"]), only(1, **ONE["rotation"])
    assert (apply_rounds(images, (erase, turn)) - apply_rounds(images, (turn, erase))).abs().max() > 0.2
    fixed = [operation_by_operation(order, SIZE) for order in ((erase, turn), (turn, erase))]
    assert torch.equal(apply_rounds(images, fixed[0]), apply_rounds(images, fixed[1]))
    assert torch.allclose(apply_rounds(images, fixed[0]), apply_rounds(images, (turn, erase)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop_scale": (1.0, 0.9)},
        {"crop_scale": (0.5, 1.5)},
        {"erase_ratio": (0.0, 1.0)},
        {"flip_probability": 1.5},
        {"pool_size": 7},
        {"polo_size": 2},
        {"method": "polo"},
        {"blur_kernel": 5},
        {"blur_sigma": (2.0, 0.1)},
        {"hue": 0.6},
        {"rand_augment_magnitude": 31},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        ImageAugmentation.parse(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_gpu_equals_cpu(method: str) -> None:
    images = photos(64)
    settings = ImageAugmentation.parse({"method": method, "pool_size": 3, "with_replacement": True})
    on_cpu = augment_images(as_unit(images), settings, seeded(1))
    on_gpu = augment_images(images.cuda(), settings, seeded(1))
    assert on_gpu.device.type == "cuda"
    apart = (on_gpu.cpu() - on_cpu).abs() > 2e-3
    # The policies quantise pixels, and values between two levels may round either way.
    assert apart.float().mean() < (0.01 if method.endswith("_augment") else 1e-9)
