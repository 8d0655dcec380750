"""Resolution of the paths in an annotation file, with one directory listing per folder instead of one look-up per image."""

import os
from pathlib import Path
from typing import final

from tbps.errors import AnnotationError
from tbps.preprocess.metadata import resolve_inside


@final
class ImageFolder:
    """The folder that the paths of an annotation file are relative to.

    A folder is listed when the first path in it is resolved; files that appear afterwards are still found, but more slowly.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, tuple[Path, frozenset[str]]] = {}

    def resolve(self, name: str) -> Path:
        """Resolves a path like `resolve_inside(root, name)`, with the same errors."""
        parent, _, file = name.rpartition("/")
        if name[:1] == "/" or "\\" in name or ":" in name or name.isspace():
            return resolve_inside(self.root, name)
        if parent not in self._folders:
            self._folders[parent] = self._list(parent)
        folder, files = self._folders[parent]
        # A name with another Unicode form on disk (composed or decomposed letters) is not in the listing: look it up separately.
        return folder / file if file in files else resolve_inside(self.root, name)

    def _list(self, parent: str) -> tuple[Path, frozenset[str]]:
        """Lists the resolved folder and the names of its regular files; no names if it is missing or refused."""
        try:
            folder = resolve_inside(self.root, parent or ".")
            with os.scandir(folder) as entries:
                return folder, frozenset(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
        except (AnnotationError, OSError):
            return self.root, frozenset()
