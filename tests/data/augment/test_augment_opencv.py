"""OpenCV's augmentation of uint8 on a CPU against float32, which `test_augment_image` compares with other libraries."""

import colorsys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from tbps.data.augment.apply import apply_rounds, as_unit
from tbps.data.augment.image import ImageAugmentation, draw_rounds
from tbps.data.augment.rounds import Round, neutral_round
from tbps.data.augment.views import ViewAugmentation, draw_view

COUNT, SIZE = 12, (96, 64)
LEVEL = 1 / 255
HALF = 0.501 * LEVEL  # largest change by one rounding


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(count: int = COUNT, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """(N, 3, H, W) uint8 images over the full range, smooth: neighbours differ by 8 levels on average."""
    noise = torch.rand(count, 3, 8, 8, generator=seeded())
    smooth = torch.nn.functional.interpolate(noise, size=size, mode="bicubic", align_corners=False)
    return (smooth * 255).clamp(0, 255).round().to(torch.uint8)


def noise(count: int = COUNT, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """(N, 3, H, W) uint8 of uniform noise."""
    return torch.randint(0, 256, (count, 3, *size), generator=seeded(1), dtype=torch.uint8)


def only(count: int = COUNT, size: tuple[int, int] = SIZE, **values: torch.Tensor) -> Round:
    return replace(neutral_round(count, size), **values)


def within(low: float, high: float, seed: int) -> torch.Tensor:
    return torch.rand(COUNT, generator=seeded(seed)) * (high - low) + low


def apart(images: torch.Tensor, *rounds: Round) -> torch.Tensor:
    """Returns the absolute difference between the results in uint8 and in float32, in levels."""
    return (apply_rounds(images, rounds) - apply_rounds(as_unit(images), rounds)).abs() / LEVEL


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_flips_move_whole_pixels(across: bool, down: bool, times: int) -> None:
    images = noise()
    drawn = only(flip=torch.full((COUNT,), across), vertical_flip=torch.full((COUNT,), down))
    turned = [axis for axis, flips in ((3, across), (2, down)) if flips and times % 2]
    assert torch.equal(apply_rounds(images, (drawn,) * times), as_unit(images).flip(turned))


@pytest.mark.parametrize("mixed", ["erasing", "flip and erasing", "neutral rounds"])
def test_operations_without_rounding_are_exact(mixed: str) -> None:
    images = noise()
    flip = torch.arange(COUNT) % 2 == 0 if mixed == "flip and erasing" else torch.zeros(COUNT, dtype=torch.bool)
    boxes = torch.zeros(COUNT, 4)
    if mixed != "neutral rounds":
        boxes[1:] = torch.tensor([[10.0, 20.0, 30.0, 25.0], [0.5, 3.0, 7.0, 4.2], [90.0, 60.0, 6.0, 4.0]]).repeat(4, 1)[1:]
    expected = torch.where(flip.view(-1, 1, 1, 1), as_unit(images).flip(3), as_unit(images))
    for picture, (top, left, height, width) in zip(expected, boxes.tolist(), strict=True):
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                if top <= y < top + height and left <= x < left + width:
                    picture[:, y, x] = 0
    assert torch.equal(apply_rounds(images, (only(flip=flip), only(erase=boxes), only())), expected)


def test_grayscale_is_rounded_once() -> None:
    """OpenCV rounds the weights of the channels to multiples of 2^-14, which adds up to 0.02 levels."""
    assert apart(noise(), only(grayscale=torch.arange(COUNT) % 3 > 0)).max() < 0.52


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("strength", [0.1, 0.4, 1.0])
def test_a_single_jitter_is_rounded_once(name: str, strength: float) -> None:
    """For saturation, the colour matrix has entries rounded to 1 / 2048, which adds up to 3 x 255 / 2048 = 0.374 levels."""
    for images in (photos(), noise()):
        drawn = only(**{name: within(1 - strength, 1 + strength, 2)})
        assert apart(images, drawn).max() <= (0.501 + 0.374 if name == "saturation" else 0.52)


@pytest.mark.parametrize("strength", [0.1, 0.4])
def test_jitter_is_rounded_before_each_step_that_may_clip(strength: float) -> None:
    """At most three roundings of half a level; contrast and saturation amplify the earlier ones."""
    drawn = only(**{name: within(1 - strength, 1 + strength, i) for i, name in enumerate(("brightness", "contrast", "saturation"))})
    gain = (1 + strength) * (1 + 2 * strength)  # contrast, then saturation: (1 + strength) colour - strength grey
    for images in (photos(), noise()):
        difference = apart(images, drawn)
        assert difference.max() <= 0.5 * gain + 0.5 * (1 + 2 * strength) + 0.5 + 0.374
        assert difference.mean() < 0.35


def test_jitter_clips_in_between_as_float_does() -> None:
    """Brightness clips pixels to white before contrast is lowered; uint8 and float32 must clip at the same step."""
    images = noise()
    bright = only(brightness=torch.full((COUNT,), 1.4), contrast=torch.full((COUNT,), 0.6), saturation=torch.full((COUNT,), 0.7))
    assert apart(images, bright).max() < 2
    stark = only(brightness=torch.full((COUNT,), 0.8), contrast=torch.full((COUNT,), 1.9), saturation=torch.full((COUNT,), 0.3))
    assert apart(images, stark).max() < 2


def test_hue_equals_colorsys_up_to_its_quantisation() -> None:
    """Hue is quantised to 1/512 and 1/510 of the circle, six levels of pure colours; saturation and rounding add one level."""
    images, turns = noise(6, (8, 6)), (0.1, -0.07, 0.0, 0.5, -0.5, 0.001)
    turned = apply_rounds(images, (only(6, (8, 6), hue=torch.tensor(turns)),))
    off = []
    for image, turn, result in zip(images.double() / 255, turns, turned, strict=True):
        for before, after in zip(image.flatten(1).T.tolist(), result.flatten(1).T.tolist(), strict=True):
            h, s, v = colorsys.rgb_to_hsv(*before)
            off += [abs(a - b) / LEVEL for a, b in zip(after, colorsys.hsv_to_rgb((h + turn) % 1, s, v), strict=True)]
    assert max(off) < 7
    assert np.mean(off) < 0.8


def test_hue_has_no_bias_and_does_not_change_grey() -> None:
    grey = noise()[:, :1].expand(-1, 3, -1, -1)
    drawn = only(hue=within(-0.5, 0.5, 4))
    assert torch.equal(apply_rounds(grey, (drawn,)), as_unit(grey))
    colourful = noise(COUNT, (200, 200))
    drawn = only(COUNT, (200, 200), hue=within(-0.1, 0.1, 4))
    assert (apply_rounds(colourful, (drawn,)) - apply_rounds(as_unit(colourful), (drawn,))).mean().abs() < 0.02 * LEVEL


@pytest.mark.parametrize("size", [SIZE, (8, 4), (1, 3)])
@pytest.mark.parametrize("kernel", [3, 7, 13])
def test_blur_equals_scipys_truncated_gaussian_to_half_a_level(size: tuple[int, int], kernel: int) -> None:
    """Includes images smaller than the kernel, which torch refuses because their border is reflected more than once."""
    images, sigmas = noise(5, size), (0.1, 0.4, 2.0, 0.0, 1.1)
    blurred = apply_rounds(images, (only(5, size, blur=torch.tensor(sigmas), blur_kernel=kernel),)).double().numpy()
    for image, sigma, result in zip(images.double().numpy() / 255, sigmas, blurred, strict=True):
        expected = image
        for axis in (1, 2) if sigma else ():
            expected = ndimage.gaussian_filter1d(expected, sigma, axis, mode="mirror", radius=kernel // 2)
        assert np.abs(result - expected).max() < HALF


def test_blurs_of_several_rounds_are_applied_one_after_another() -> None:
    drawn = [only(blur=within(0.5, 2, seed), blur_kernel=kernel) for seed, kernel in ((1, 7), (2, 11))]
    assert apart(noise(), *drawn).max() < 1
    assert apart(noise(), drawn[0]).max() < 0.5


# OpenCV rounds coordinates, by up to 1/64 pixel along each axis. A bilinear sample then changes by up to 1/32 of the difference
# between neighbours: 8 levels where noise has a difference of 255. The mean difference in noise is 85.
@pytest.mark.parametrize(("images", "mean", "most"), [(photos(), 0.5, 3.0), (noise(), 1.2, 8.5)], ids=["photos", "noise"])
@pytest.mark.parametrize("what", ["crop", "rotation", "both twice"])
def test_geometry_is_exact_to_a_32nd_of_a_pixel(images: torch.Tensor, mean: float, most: float, what: str) -> None:
    boxes = torch.stack([within(0, 20, 1), within(0, 20, 2), within(40, 76, 3), within(30, 44, 4)], 1)
    flips = torch.rand(COUNT, 2, generator=seeded(5)) < 0.5
    cropped = only(crop=boxes, flip=flips[:, 0], vertical_flip=flips[:, 1])
    turned = only(angle=within(-180, 180, 6))
    rounds = {"crop": (cropped,), "rotation": (turned,), "both twice": (cropped, turned, cropped, turned)}[what]
    difference = apart(images, *rounds)
    assert difference.mean() < mean
    # A rotated image has a hard edge to its black corners, which a smooth image has nowhere else.
    assert difference.max() < (8.5 if what != "crop" else most)


MIXTURES = {
    "pool": draw_rounds(COUNT, SIZE, ImageAugmentation(with_replacement=True), seeded(7)),
    "stacking": draw_rounds(COUNT, SIZE, ImageAugmentation(method="stacking"), seeded(7)),
    "view": (draw_view(COUNT, SIZE, ViewAugmentation(), seeded(7)),),
    "two views": tuple(draw_view(COUNT, SIZE, ViewAugmentation(), seeded(seed)) for seed in (8, 9)),
}


@pytest.mark.parametrize(
    ("mixture", "mean", "most"), [("pool", 0.4, 7), ("stacking", 0.5, 7), ("view", 0.5, 10), ("two views", 0.6, 10)]
)
def test_combined_operations_are_close_to_float32(mixture: str, mean: float, most: float) -> None:
    """The limits are sums of the bounds above; a wrong order or a missing operation changes the mean by several levels."""
    difference = apart(photos(), *MIXTURES[mixture])
    assert difference.mean() < mean
    assert difference.max() < most


@pytest.mark.parametrize("mixture", MIXTURES)
def test_batch_memory_layout_and_threads_do_not_change_an_image(mixture: str) -> None:
    images, rounds = photos(), MIXTURES[mixture]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        together = apply_rounds(images, rounds)
        torch.set_num_threads(3)
        assert torch.equal(apply_rounds(images, rounds), together)
    finally:
        torch.set_num_threads(threads)
    for i in range(COUNT):
        alone = apply_rounds(images[i : i + 1], tuple(drawn.part(slice(i, i + 1)) for drawn in rounds))
        assert torch.equal(alone[0], together[i])
    innermost = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # channels last, as in a cache
    spread = torch.zeros(COUNT, 3, SIZE[0], 2 * SIZE[1], dtype=torch.uint8)[..., ::2].copy_(images)
    for other in (innermost, spread):
        result = apply_rounds(other, rounds)
        assert torch.equal(result, together)
        assert result.is_contiguous()
    assert together.min() >= 0
    assert together.max() <= 1


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("mixture", MIXTURES)
def test_a_read_only_cache_is_not_written(mixture: str, tmp_path: Path) -> None:
    images = photos().permute(0, 2, 3, 1).numpy()
    np.save(tmp_path / "cache.npy", images)
    cache = torch.from_numpy(np.load(tmp_path / "cache.npy", mmap_mode="r")).permute(0, 3, 1, 2)  # writing to it would crash
    assert torch.equal(apply_rounds(cache, MIXTURES[mixture]), apply_rounds(photos(), MIXTURES[mixture]))
    assert np.array_equal(np.load(tmp_path / "cache.npy"), images)


def test_tiny_images_and_an_empty_batch() -> None:
    size = (8, 4)
    view = draw_view(COUNT, size, ViewAugmentation(), seeded(3))
    assert view.blur_kernel > max(size)
    result = apply_rounds(noise(COUNT, size), (view,))
    assert result.shape == (COUNT, 3, *size)
    still = replace(view, blur=torch.zeros(COUNT))
    assert apart(noise(COUNT, size), still).mean() < 1.5
    assert apply_rounds(noise(0), (neutral_round(0, SIZE),)).shape == (0, 3, *SIZE)
