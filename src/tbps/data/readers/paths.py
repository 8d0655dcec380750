"""Paths of annotation files: every folder on the way is resolved and listed once, not once an image."""

import os
from pathlib import Path
from typing import final

from tbps.errors import AnnotationError
from tbps.preprocess.metadata import resolve_inside


@final
class ImageFolder:
    """The folder that the paths of an annotation file are relative to.

    What its folders hold is read when the first path below each is asked for; files that appear afterwards are found more
    slowly, but found.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[str, tuple[Path, frozenset[str]]] = {}

    def resolve(self, name: str) -> Path:
        """As `resolve_inside(root, name)`, with the same refusals."""
        parent, _, file = name.rpartition("/")
        if name[:1] == "/" or "\\" in name or ":" in name or name.isspace():
            return resolve_inside(self.root, name)
        if parent not in self._folders:
            self._folders[parent] = self._list(parent)
        folder, files = self._folders[parent]
        # A name that is spelled otherwise on the disk (letters composed or not) is looked for more slowly.
        return folder / file if file in files else resolve_inside(self.root, name)

    def _list(self, parent: str) -> tuple[Path, frozenset[str]]:
        """The folder with links followed, and the names of its plain files; none where it is missing or refused."""
        try:
            folder = resolve_inside(self.root, parent or ".")
            with os.scandir(folder) as entries:
                return folder, frozenset(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
        except (AnnotationError, OSError):
            return self.root, frozenset()
