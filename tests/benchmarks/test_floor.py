"""The lower bound of a training step: its formulas against the operations that PyTorch counts."""

import pytest
import torch
from floor import image_operations, step_bytes, step_operations, text_operations
from torch.utils.flop_counter import FlopCounterMode

from tbps.model.clip import LockSettings, bottom_parameters, build, image_features, text_features
from tests.support.shapes import model_shape

SHAPE = model_shape((64, 3, 2), (48, 2, 2), image_size=48, patch=8, embedding=32)
LENGTH = 11


def counted(views: int, pairs: int, backward: bool) -> int:
    clip = build(SHAPE, 0)
    clip.set_attn_implementation("eager")
    for parameter in bottom_parameters(clip, LockSettings()):
        parameter.requires_grad_(False)
    pixels, tokens = torch.randn(views * pairs, 3, 48, 48), torch.full((pairs, LENGTH), 99)
    with FlopCounterMode(display=False) as counter:
        total = image_features(clip, pixels).sum() if views else torch.zeros(())
        total = total + text_features(clip, tokens).sum()
        if backward:
            torch.autograd.backward(total)
    return counter.get_total_flops()


def test_forward_operations_equal_those_that_torch_counts() -> None:
    assert counted(0, 3, backward=False) == 3 * text_operations(SHAPE, LENGTH)
    assert counted(1, 3, backward=False) == 3 * (text_operations(SHAPE, LENGTH) + image_operations(SHAPE))


@pytest.mark.parametrize("views", [1, 2, 4])
def test_operations_of_a_step_equal_those_that_torch_counts(views: int) -> None:
    assert counted(views, 2, backward=True) == step_operations(SHAPE, 2, views, LENGTH)


def test_bytes_grow_with_weights_and_pictures() -> None:
    assert step_bytes(SHAPE, 1000, 2, 4) == 40 * 1000 + 9 * 2 * 4 * 3 * 48 * 48
