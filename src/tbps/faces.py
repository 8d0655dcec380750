"""Lazy exports of packages: a name is imported from its module when it is first used.

`from tbps.gallery import Gallery` loads the modules that `Gallery` needs; `import tbps.gallery` alone loads almost nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__getattr__` and `__dir__` for a package that exports names of its modules; `homes`: module -> names."""
    module_of = {name: module for module, names in homes.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(module_of[name]), name)

    def __dir__() -> list[str]:
        return sorted(module_of)

    return __getattr__, __dir__
