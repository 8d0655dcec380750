"""What a file is taken for by its name."""

from pathlib import PurePosixPath
from typing import Literal

from tbps.preprocess.formats import OTHER_PICTURES, PICTURES

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip")
VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"})

Kind = Literal["picture", "other picture", "video", "archive"]


def is_archive(name: str) -> bool:
    """Whether a file's name is one of an archive."""
    return name.lower().endswith(ARCHIVES)


def suffix_of(name: str) -> str:
    """The ending of a file's name in small letters, with its dot."""
    return PurePosixPath(name).suffix.lower()


def kind_of(name: str) -> Kind | None:
    """None for everything that is none of these."""
    suffix = suffix_of(name)
    if suffix in PICTURES:
        return "picture"
    if suffix in VIDEOS:
        return "video"
    if is_archive(name):
        return "archive"
    return "other picture" if suffix in OTHER_PICTURES else None
