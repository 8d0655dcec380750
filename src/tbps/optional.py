"""Packages that only some uses need: imported late, and a clear way out where one is missing."""

from importlib import import_module
from typing import Any

from tbps.errors import MissingDependencyError


def needed(module: str, what: str, extra: str) -> Any:
    """A module of an optional extra. Raises MissingDependencyError that says what needs it and how to get it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs {module}, which is not installed; run in the checkout of tbps: pip install -e '.[{extra}]'"
        ) from error
