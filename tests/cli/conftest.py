"""Fixture of the tests of commands."""

from collections.abc import Callable

import pytest


@pytest.fixture
def run(run_tbps: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """Short name of `run_tbps`."""
    return run_tbps
