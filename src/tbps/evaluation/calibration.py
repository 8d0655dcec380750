"""Calibrate scores on a labelled split: the share of relevant pairs by relative score, from isotonic regression."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int64

from tbps.errors import EvaluationError
from tbps.optional import needed

Relative = Callable[[int, int], np.ndarray]

BIN = 0.02
_LOWEST, _HIGHEST = -20.0, 40.0
_BLOCK = 256


def share_of_right(
    relative: Relative, text_ids: Int64[np.ndarray, " Q"], image_ids: Int64[np.ndarray, " G"]
) -> tuple[Float64[np.ndarray, " knots"], Float64[np.ndarray, " knots"], float]:
    """Fit a non-decreasing curve; returns its knots (scores, shares) and the mean number of relevant images per query.

    relative(start, stop): scores (stop - start, G) of these queries against all images, on a scale that is comparable between
    queries. All Q x G pairs are counted, in bins of 0.02. One relevant and one irrelevant pair are added to the highest bin that
    has a pair, so that no share is 1.

    Raises EvaluationError if no pair is relevant, MissingDependencyError without scikit-learn.
    """
    isotonic = needed("sklearn.isotonic", "calibration", "calibration")
    bins = round((_HIGHEST - _LOWEST) / BIN)
    pairs, right = np.zeros(bins), np.zeros(bins)
    for start in range(0, len(text_ids), _BLOCK):
        stop = min(start + _BLOCK, len(text_ids))
        places = np.clip((relative(start, stop) - _LOWEST) / BIN, 0, bins - 1).astype(np.int64)
        own = text_ids[start:stop, None] == image_ids[None]
        pairs += np.bincount(places.ravel(), minlength=bins)
        right += np.bincount(places[own], minlength=bins)
    if not right.any():
        raise EvaluationError("no caption of the split has an image of its identity; there is nothing to calibrate on")
    per_query = float(right.sum()) / len(text_ids)
    met = np.flatnonzero(pairs)
    pairs[met[-1]] += 2
    right[met[-1]] += 1
    curve = isotonic.IsotonicRegression(y_min=0, y_max=1).fit(_LOWEST + (met + 0.5) * BIN, right[met] / pairs[met], pairs[met])
    return curve.X_thresholds_, curve.y_thresholds_, per_query
