"""The learning rate and the soft labels follow the paper's settings at their corners."""

import pytest
import torch
from torch import nn

from tbps.training.optimizer import OptimizerSettings, adamw
from tbps.training.schedule import ScheduleSettings, learning_rate, soft_label_share


def test_rate_rises_linearly_then_falls_as_a_cosine() -> None:
    settings, steps = ScheduleSettings(), 100
    rates = [learning_rate(step, steps, settings) for step in range(500)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[50] == pytest.approx((1e-6 + 1e-4) / 2)
    assert rates[100] == pytest.approx(1e-4)
    assert rates[300] == pytest.approx((1e-4 + 5e-6) / 2)
    assert learning_rate(500, steps, settings) == pytest.approx(5e-6)
    assert rates[:101] == sorted(rates[:101]) and rates[100:] == sorted(rates[100:], reverse=True)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert learning_rate(0, 100, ScheduleSettings(warmup_epochs=0)) == pytest.approx(1e-4)


def test_soft_labels_ramp_over_the_first_epoch() -> None:
    assert [soft_label_share(step, 100, 0.5) for step in (0, 50, 100, 900)] == pytest.approx([0, 0.25, 0.5, 0.5])


def test_one_dimensional_parameters_do_not_decay_and_locked_ones_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    model[2].weight.requires_grad_(False)
    optimizer = adamw(model, OptimizerSettings())
    decayed, kept = ([p for p in group["params"]] for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.02, 0.0]
    assert [p is model[0].weight for p in decayed] == [True]
    assert all(p.ndim == 1 for p in kept) and len(kept) == 4
    assert not any(p is model[2].weight for p in decayed) and torch.is_tensor(kept[0])
