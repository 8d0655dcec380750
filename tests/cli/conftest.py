"""Fixture of the tests of commands."""

from collections.abc import Callable

import pytest


@pytest.fixture
def run(run_tbps: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """`run_tbps` under a short name."""
    return run_tbps
