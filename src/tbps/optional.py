"""Optional dependencies, imported when they are needed."""

from importlib import import_module
from typing import Any

from tbps.errors import MissingDependencyError


def needed(module: str, what: str, extra: str) -> Any:
    """Imports a module of an optional extra. Raises MissingDependencyError that names the feature and the command to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} needs {module}, which is not installed; run in the checkout of tbps: pip install -e '.[{extra}]'"
        ) from error
