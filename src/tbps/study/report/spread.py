"""Mean and spread over seeds, and paired differences between rows with bootstrap intervals (Efron 1979, percentile method)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tbps.seeding import generator

CONFIDENCE = 0.95
RESAMPLES = 10_000
ENOUGH = 6
"""With at least this many seeds, rows that do not differ give differences of one sign in fewer than 5 % of cases (`by_luck`)."""


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """Mean, sample standard deviation (None for a single value) and number of values over seeds."""

    mean: float
    std: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean difference over the seeds that both rows have, with its interval; `low` and `high` are None for a single seed."""

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)

    @property
    def by_luck(self) -> float:
        """Probability that all differences have the same sign by chance, if the rows do not differ."""
        return float(min(1.0, 2.0 ** (1 - self.count)))


def spread(values: Sequence[float]) -> SeedSpread:
    """Compute mean and sample standard deviation of at least one value."""
    return SeedSpread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


def paired_difference(ours: Mapping[int, float], base: Mapping[int, float]) -> Difference | None:
    """Compute the difference `ours` minus `base` over their common seeds; None if they share no seed.

    The interval contains the middle 95 % of the means of 10,000 seeded resamples of the differences.
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
