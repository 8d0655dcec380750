"""Text-based person search: describe a person in words, find them in a gallery of images.

```python
import tbps

model = tbps.load("models/mannequin-tiny")
gallery = tbps.Gallery.open("my-gallery", model)
gallery.add("photos/")
hits = gallery.search("a woman in a red coat with a black backpack", k=10)
```
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tbps.gallery import Example, Gallery, Hit, Page, Query, Text
    from tbps.model import PersonModel, load

__version__ = "0.2.0"
__all__ = ["Example", "Gallery", "Hit", "Page", "PersonModel", "Query", "Text", "load"]

_HOMES = {
    "Example": "tbps.gallery",
    "Gallery": "tbps.gallery",
    "Hit": "tbps.gallery",
    "Page": "tbps.gallery",
    "Query": "tbps.gallery",
    "Text": "tbps.gallery",
    "PersonModel": "tbps.model",
    "load": "tbps.model",
}


UNSUPPORTED = "tbps does not run on Windows, which lacks the file locks that it needs; install it inside WSL (wsl --install)"


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import tbps` loads no torch. Raises
    UnsupportedSystemError on Windows.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'tbps' has no attribute {name!r}")
    if os.name != "posix":
        from tbps.errors import UnsupportedSystemError

        raise UnsupportedSystemError(UNSUPPORTED)
    return getattr(import_module(_HOMES[name]), name)
