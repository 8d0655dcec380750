"""Learning rate and soft labels at the first, peak and last updates of the paper's schedule."""

import pytest

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
