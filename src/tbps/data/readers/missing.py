"""Handling of records whose image file is missing.

Copies of CUHK-PEDES exist in which `imgs/` contains only some of its seven folders while the annotation file names all.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tbps.data.records import PersonImage
from tbps.errors import AnnotationError

_NAMED = 8


def without_missing(
    file: Path, root: Path, images: Sequence[PersonImage], place: Callable[[int], str], allowed: bool
) -> tuple[Sequence[PersonImage], list[str]]:
    """Returns the images whose files exist, and a warning about the others, if any.

    Unless `allowed`, raises AnnotationError, which counts the missing files by folder and names the first. Raises it in any case if
    no image is left.
    """
    # `Path.is_file` would raise for a name that is too long and for a folder without permission
    missing = [index for index, image in enumerate(images) if not os.path.isfile(image.path)]
    if not missing:
        return images, []
    counted = f"{len(missing):,} of {len(images):,} image files are missing"
    folders = _by_folder(root, [images[index].path for index in missing], [image.path for image in images])
    if len(missing) == len(images):
        raise AnnotationError(
            f"{file}: {counted}, the first at {place(missing[0])}: {images[missing[0]].path}{folders}; no image is left"
        )
    if not allowed:
        raise AnnotationError(
            f"{file}: {counted}, the first at {place(missing[0])}: {images[missing[0]].path}{folders}; "
            "add --allow-missing to go on without them"
        )
    gone = set(missing)
    return [image for index, image in enumerate(images) if index not in gone], [f"{counted} and were left out{folders}"]


def _by_folder(root: Path, missing: Sequence[Path], every: Iterable[Path]) -> str:
    """Describes which folders lack files, absent folders first; empty where all files are in one folder."""
    base = Path(os.path.realpath(root))
    lacking, named = (Counter(path.parent for path in paths) for paths in (missing, every))
    if len(named) == 1:
        return ""
    absent = [folder for folder in lacking if not os.path.isdir(folder)]
    partly = [folder for folder in lacking if os.path.isdir(folder)]
    shown = [f"{_name(base, folder)} (the folder, with {lacking[folder]:,} files)" for folder in sorted(absent)]
    shown += [f"{_name(base, folder)} ({lacking[folder]:,} of {named[folder]:,} files)" for folder in sorted(partly)]
    more = f" and {len(shown) - _NAMED:,} more folders" if len(shown) > _NAMED else ""
    return f"; missing: {', '.join(shown[:_NAMED])}{more}"


def _name(base: Path, folder: Path) -> str:
    return str(folder.relative_to(base)) if folder.is_relative_to(base) else str(folder)
