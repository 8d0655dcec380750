import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from tbps.data.augment.apply import apply_rounds, as_unit
from tbps.data.augment.rounds import neutral_round
from tbps.data.augment.views import ViewAugmentation, draw_view, simclr_view
from tbps.errors import SettingsError

PAPER = ViewAugmentation()
SIZE = (40, 24)


def photos(count: int) -> torch.Tensor:
    noise = torch.rand(count, 3, 6, 6, generator=seeded())
    return (torch.nn.functional.interpolate(noise, size=SIZE, mode="bilinear") * 255).round().to(torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_view_keeps_shape_range_input_and_global_random_state() -> None:
    images = photos(16)
    unit, before, state = images.float() / 255, images.clone(), torch.get_rng_state()
    view = simclr_view(images, PAPER, seeded(1))
    assert view.shape == images.shape
    assert view.min() >= 0
    assert view.max() <= 1 + 1e-6
    # uint8 is rounded to whole levels, see `test_augment_opencv`
    assert (view - simclr_view(unit, PAPER, seeded(1))).abs().mean() < 0.7 / 255
    assert (view - simclr_view(unit, PAPER, seeded(1))).abs().max() < 10 / 255
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_two_views_and_two_images_differ() -> None:
    same = photos(1).expand(16, -1, -1, -1)
    stream = seeded(1)
    views = torch.cat([simclr_view(same, PAPER, stream), simclr_view(same, PAPER, stream)])
    assert len({view.numpy().tobytes() for view in views}) == 32


def test_probabilities_and_ranges_of_the_paper() -> None:
    count, size = 20_000, (96, 96)
    drawn = draw_view(count, size, PAPER, seeded(2))
    for happened, probability in (
        (drawn.brightness != 1, 0.8),
        (drawn.hue != 0, 0.8),
        (drawn.grayscale, 0.2),
        (drawn.blur > 0, 0.5),
        (drawn.flip, 0.5),
    ):
        assert abs(happened.float().mean() - probability) < 4 * math.sqrt(probability * (1 - probability) / count)
    assert torch.equal(drawn.brightness != 1, drawn.hue != 0), "the four jitter operations are applied together"
    assert torch.equal(drawn.contrast != 1, drawn.saturation != 1)
    for factor in (drawn.brightness, drawn.contrast, drawn.saturation):
        assert stats.kstest(factor[factor != 1].numpy(), stats.uniform(0.6, 0.8).cdf).pvalue > 1e-4
    assert stats.kstest(drawn.hue[drawn.hue != 0].numpy(), stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-4
    assert stats.kstest(drawn.blur[drawn.blur > 0].numpy(), stats.uniform(0.1, 1.9).cdf).pvalue > 1e-4
    assert drawn.blur_kernel == 13
    share = drawn.crop[:, 2] * drawn.crop[:, 3] / (size[0] * size[1])
    assert share.min() > 0.19
    assert share.max() <= 1
    assert 0.5 < share.mean() < 0.65


def test_operations_have_simclrs_order() -> None:
    """Crop (and flip, which commutes with the rest), jitter, hue, grayscale, blur."""
    images = as_unit(photos(64))
    drawn = draw_view(64, SIZE, PAPER, seeded(3))
    nothing = neutral_round(64, SIZE)
    steps = images
    for step in (
        replace(nothing, crop=drawn.crop, flip=drawn.flip),
        replace(nothing, brightness=drawn.brightness, contrast=drawn.contrast, saturation=drawn.saturation),
        replace(nothing, hue=drawn.hue),
        replace(nothing, grayscale=drawn.grayscale),
        replace(nothing, blur=drawn.blur, blur_kernel=drawn.blur_kernel),
    ):
        steps = apply_rounds(steps, (step,))
    assert torch.allclose(simclr_view(images, PAPER, seeded(3)), steps, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"crop_scale": (0.9, 0.2)}, {"crop_scale": (0.5, 1.2)}, {"hue": 0.7}, {"blur": 1}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        ViewAugmentation.parse(wrong)
