"""Chance metrics against all orders of small galleries, equal scores with random ties, and simulated large galleries."""

import numpy as np
import pytest

from tbps.evaluation import chance, metrics_from_scores
from tests.oracles import retrieval as oracle

KS = (1, 2, 5, 10, 50)


@pytest.mark.parametrize("image_ids", [[1], [1, 1], [1, 2, 3], [1, 1, 2, 2, 3], [1, 1, 1, 1, 2, 3, 3]])
def test_equals_the_mean_over_all_orders(image_ids):
    text_ids = sorted(set(image_ids))
    expected = oracle.ties_at_random(np.zeros((len(text_ids), len(image_ids))).tolist(), text_ids, image_ids, KS)
    report = chance(text_ids, image_ids, KS)
    ours = [*(report.ranks[k] for k in KS), report.map, report.minp]
    assert ours == pytest.approx([*expected.ranks.values(), expected.map, expected.minp], abs=1e-9)


def test_equals_equal_scores_with_ties_at_random():
    rng = np.random.default_rng(0)
    image_ids = rng.integers(0, 30, 500)
    text_ids = rng.choice(image_ids, 200)
    equal = metrics_from_scores(lambda start, stop: np.ones((stop - start, 500)), text_ids, image_ids, KS, ties="random")
    ours = chance(text_ids, image_ids, KS)
    assert ours.as_dict() == pytest.approx(equal.as_dict(), abs=1e-9)


def test_equals_a_simulation():
    """66 rounds of 60 random rankings of 300 images. At five standard errors, a correct formula fails once in 200,000 runs."""
    rng = np.random.default_rng(1)
    image_ids = np.repeat(np.arange(60), np.tile([1, 3, 5, 11], 15))
    text_ids = np.arange(60)
    rounds = [
        metrics_from_scores(lambda start, stop: rng.random((stop - start, 300)), text_ids, image_ids, KS) for _ in range(4000 // 60)
    ]
    expected = chance(text_ids, image_ids, KS).as_dict()
    for name, value in expected.items():
        drawn = np.array([r.as_dict()[name] for r in rounds])
        error = drawn.std(ddof=1) / np.sqrt(len(drawn))
        assert drawn.mean() == pytest.approx(value, abs=5 * error), name


def test_one_right_image_of_a_thousand():
    report = chance([0], np.arange(1000))
    assert [report.r1, report.r5, report.r10] == pytest.approx([0.1, 0.5, 1.0])
    assert report.map == pytest.approx(100 * np.mean(1 / np.arange(1, 1001)))
    assert report.minp == pytest.approx(report.map)


def test_large_galleries_do_not_overflow():
    report = chance([0], np.repeat([0, 1], [500, 99_500]))
    assert report.r1 == pytest.approx(0.5)
    assert 0.5 < report.map < 0.6 and report.minp == pytest.approx(0.501, abs=0.001)
