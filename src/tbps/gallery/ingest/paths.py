"""Paths of indexed files: normalises them for comparison, and checks whether a file is gone."""

import os
from collections.abc import Mapping

from tbps.gallery.suffixes import is_archive
from tbps.preprocess.names import composed


def path_of(root: str, name: str) -> str | None:
    """The path of a picture, equal for composed and decomposed letters; None for a picture without a file."""
    return composed(f"{root}/{name}") if root else None


def is_gone(path: str, members: Mapping[str, frozenset[str]]) -> bool:
    """Whether a file certainly no longer exists.

    A file that cannot be checked (no permission, or in an archive that was not listed) counts as existing.
    members: path of an archive that was listed to its end -> names of its pictures.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        archive = path
        while not os.path.isfile(archive):
            archive = os.path.dirname(archive)
        if not is_archive(archive):
            return True
        return archive in members and path[len(archive) + 1 :] not in members[archive]
    except (OSError, ValueError):
        return False
    return False
