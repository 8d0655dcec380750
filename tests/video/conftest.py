"""Fixtures of the video tests."""

import numpy as np
import pytest

from tests.support.walkers import Walker, film


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """30 frames of one person who walks."""
    return film([Walker(3, 100, 60)], 30)[0]
