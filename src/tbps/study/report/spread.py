"""Mean and spread over seeds, and the paired difference between two rows with a bootstrap interval (Efron 1979, percentile)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tbps.seeding import generator

CONFIDENCE = 0.95
RESAMPLES = 10_000
ENOUGH = 6
"""Seeds from which an interval that leaves out 0 is rarer than 5 % where nothing differs. See `Difference.by_luck`."""


@dataclass(frozen=True, slots=True)
class Spread:
    """`std`: the sample standard deviation, None of a single value."""

    mean: float
    std: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean over the seeds that both rows have, and its interval; `low` and `high` are None for fewer than two seeds."""

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)

    @property
    def by_luck(self) -> float:
        """How often so many differences all have one sign where there is no difference: what few seeds' intervals rest on."""
        return float(min(1.0, 2.0 ** (1 - self.count)))


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


def paired_difference(ours: Mapping[int, float], base: Mapping[int, float]) -> Difference | None:
    """Over the seeds of both, `ours` minus `base`; None where there is none.

    The interval holds the middle 95 % of the means of 10,000 seeded resamples of the differences.
    """
    seeds = sorted(ours.keys() & base.keys())
    if not seeds:
        return None
    differences = np.array([ours[seed] - base[seed] for seed in seeds])
    if len(seeds) == 1:
        return Difference(float(differences[0]), None, None, 1)
    drawn = generator(0, "bootstrap").integers(len(seeds), size=(RESAMPLES, len(seeds)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(differences[drawn].mean(1), [tail, 1 - tail])
    return Difference(float(differences.mean()), float(low), float(high), len(seeds))
