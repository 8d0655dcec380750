"""Mean, spread and intervals against NumPy, SciPy and the full list of resamples."""

import itertools

import numpy as np
import pytest
from scipy.stats import bootstrap

from tbps.study.report.spread import Difference, paired_difference, spread


def test_spread_is_the_sample_deviation() -> None:
    found = spread([60.0, 61.0, 65.0])
    assert (found.mean, found.count) == (62.0, 3)
    assert found.std == pytest.approx(7.0**0.5)
    assert spread([60.0]).std is None


def test_only_seeds_of_both_rows_count() -> None:
    found = paired_difference({0: 62.0, 1: 64.0, 7: 99.0}, {0: 60.0, 1: 61.0, 2: 0.0})
    assert found is not None and (found.mean, found.count) == (2.5, 2)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    alone = paired_difference({3: 1.0}, {3: 0.5})
    assert alone == Difference(0.5, None, None, 1) and alone.sign == 0


def test_the_interval_equals_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        ours, base = rng.normal(64, 1, 12), rng.normal(63, 1, 12)
        found = paired_difference(dict(enumerate(ours)), dict(enumerate(base)))
        theirs = bootstrap(((ours - base),), np.mean, n_resamples=200_000, method="percentile", rng=rng).confidence_interval
        assert found is not None and found.low is not None
        # 10,000 resamples place a quantile within about sqrt(0.025 * 0.975 / 10000) / density: 0.02 for a deviation of 0.4
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


@pytest.mark.parametrize("values", [(1.0, 2.0, 4.0), (-1.0, 2.0, 3.0, 3.5), (0.5, -0.5)])
def test_intervals_of_few_seeds_against_all_resamples(values: tuple[float, ...]) -> None:
    """The interval ends between the 2nd and 3rd, and the 97th and 98th percentile of the means of all n^n resamples."""
    means = sorted(np.mean(chosen) for chosen in itertools.product(values, repeat=len(values)))
    found = paired_difference(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))
    assert found is not None and found.low is not None and found.high is not None
    at = [float(np.quantile(means, share, method="inverted_cdf")) for share in (0.02, 0.03, 0.97, 0.98)]
    assert at[0] - 1e-9 <= found.low <= at[1] + 1e-9 and at[2] - 1e-9 <= found.high <= at[3] + 1e-9


def test_intervals_are_reproducible_and_decide_the_sign() -> None:
    rising = {seed: 1.0 + seed for seed in range(3)}
    base = dict.fromkeys(range(3), 0.0)
    assert paired_difference(rising, base) == paired_difference(rising, base)
    signs = [paired_difference(row, base) for row in (rising, {s: -v for s, v in rising.items()}, {0: -1.0, 1: 1.0, 2: 1.0}, base)]
    assert [one.sign for one in signs if one] == [1, -1, 0, 0]
    assert rising.keys() == base.keys() and Difference(1, 0.5, 1.5, 3).by_luck == 0.25


def test_by_luck_is_the_probability_that_all_seeds_have_the_same_sign() -> None:
    for count in (2, 3, 5):
        coins = list(itertools.product((-1, 1), repeat=count))
        assert Difference(0, 0, 0, count).by_luck == sum(abs(sum(one)) == count for one in coins) / len(coins)
