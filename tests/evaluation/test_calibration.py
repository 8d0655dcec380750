"""Calibration: the curve against isotonic regression on all pairs, and the bundled model's estimates on other people."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from tbps.data.embedding import decoded, embed_split, identities
from tbps.data.mannequins.writing import SplitSize, write_mannequins
from tbps.data.readers.catalog import read_dataset
from tbps.errors import EvaluationError
from tbps.evaluation.calibration import BIN, share_of_right
from tbps.gallery.search.calibration import calibration_of, cutoff_at
from tbps.gallery.store.moments import Moments
from tbps.model.bundle import load

BUNDLED = Path(__file__).parents[2] / "models" / "mannequin-tiny"


def test_the_curve_equals_isotonic_regression_on_all_pairs() -> None:
    rng = np.random.default_rng(0)
    text_ids, image_ids = np.arange(300) % 60, np.arange(400) % 60
    scores = rng.standard_normal((300, 400)) + 1.5 * (text_ids[:, None] == image_ids)
    z, share, right = share_of_right(lambda start, stop: scores[start:stop], text_ids, image_ids)
    own = (text_ids[:, None] == image_ids).ravel()
    slow = IsotonicRegression(out_of_bounds="clip").fit(scores.ravel(), own.astype(float))
    assert right == own.sum() / 300
    grid = np.linspace(-3, 4, 200)
    off = np.abs(np.interp(grid, z, share) - slow.predict(grid))
    assert off.max() < 0.1 and off.mean() < 0.01  # differs by the bins and by two added pairs at the top
    assert (np.diff(share) >= 0).all() and share[-1] < 1
    assert np.abs(z - scores.max()).min() < BIN


def test_the_curve_recovers_the_probability_that_drew_the_labels() -> None:
    rng = np.random.default_rng(1)
    scores = rng.uniform(-3, 3, (600, 500))
    right = rng.random(scores.shape) < 1 / (1 + np.exp(-2 * scores))
    # One text per calibration, with all scores as its images, so that any labels are possible.
    z, share = [], []
    for half in (slice(0, 300), slice(300, 600)):
        flat = scores[half].ravel()
        ids = np.where(right[half].ravel(), 0, 1)
        knots = share_of_right(lambda start, stop, flat=flat: flat[None], np.zeros(1, np.int64), ids)
        z.append(knots[0])
        share.append(knots[1])
    grid = np.linspace(-2.9, 2.9, 100)
    for knots, values in zip(z, share, strict=True):
        assert np.abs(np.interp(grid, knots, values) - 1 / (1 + np.exp(-2 * grid))).max() < 0.06


def test_a_split_without_right_pairs_is_refused() -> None:
    with pytest.raises(EvaluationError, match="nothing to calibrate on"):
        share_of_right(lambda start, stop: np.zeros((stop - start, 2)), np.array([1, 2]), np.array([3, 4]))


@pytest.mark.parametrize(
    ("chances", "share", "expected"),
    [
        ([0.9, 0.5, 0.1, 0.1], 0.5, (3, 0.5)),
        ([0.9, 0.5, 0.1, 0.1], 0.4, (4, 0.4)),
        ([0.2, 0.1], 0.5, (0, 0.2)),
        ([], 0.5, (0, 0.0)),
        ([1.0], 0.99, (1, 1.0)),
    ],
)
def test_the_cutoff_is_the_last_rank_with_the_expected_share_of_right_hits(
    chances: list[float], share: float, expected: tuple[int, float]
) -> None:
    assert cutoff_at(np.array(chances), share) == (expected[0], pytest.approx(expected[1]))


def test_the_bundled_models_estimates_are_right_for_other_people_and_gallery_sizes(tmp_path: Path) -> None:
    model = load(BUNDLED)
    calibration = calibration_of(model)
    assert calibration is not None
    write_mannequins(tmp_path / "people", {"test": SplitSize(100, 4)}, seed=31, workers=1)
    split = read_dataset("folder", tmp_path / "people").split("test")
    texts, images = embed_split(split, decoded(split.images, model.spec), model.encode_arrays, model.encode_texts)
    text_ids, image_ids = identities(split)
    for people in (40, 100):  # galleries of 160 and 400 images; the model was calibrated on 4,000
        shown, asked = image_ids < np.unique(image_ids)[people - 1] + 1, text_ids < np.unique(image_ids)[people - 1] + 1
        gallery, ids = images[shown], image_ids[shown]
        moments = Moments(gallery)
        expected, right, above, right_above = [], [], 0, 0
        for query, identity in zip(texts[asked].astype(np.float64), text_ids[asked], strict=True):
            scores = gallery @ query
            best = np.argsort(-scores)[:50]
            chances = calibration.chances(moments.z(query, scores[best]), len(gallery))
            own = ids[best] == identity
            hits, _ = cutoff_at(chances, 1 / 3)
            expected.append(chances[:20])
            right.append(own[:20])
            above, right_above = above + hits, right_above + own[:hits].sum()
        chance, is_right = np.concatenate(expected), np.concatenate(right)
        bins = np.digitize(chance, np.linspace(0, 1, 11))
        error = sum((bins == b).mean() * abs(chance[bins == b].mean() - is_right[bins == b].mean()) for b in np.unique(bins))
        assert error < 0.09  # 0.05 or less on thousands of captions; this sample is small
        assert 0.25 < right_above / above < 0.55  # the cutoff above promises about 1 in 3
