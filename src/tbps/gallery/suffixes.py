"""Recognises pictures, archives and videos by the endings of their names."""

from pathlib import PurePosixPath
from typing import Literal

from tbps.preprocess.formats import OTHER_PICTURES, PICTURES

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip")
"""Suffixes of the names of archives that are read."""
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3gpp", ".3g2", ".f4v", ".mkv", ".mk3d", ".webm", ".avi", ".divx"}
    | {".flv", ".wmv", ".asf", ".mpg", ".mpeg", ".mpe", ".m2p", ".vob", ".tod", ".ts", ".mts", ".m2ts", ".m2t", ".trp"}
    | {".h264", ".264", ".h265", ".265", ".hevc"}
)
_SOUND = (b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ")  # brands of files without pictures

FileKind = Literal["picture", "other picture", "video", "archive"]


def is_archive(name: str) -> bool:
    """Whether a file has the name of an archive."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def is_video(head: bytes) -> bool:
    """Whether a file is a video in a common container, by its first 12 bytes."""
    if head[4:8] == b"ftyp":
        return head[8:12] not in _SOUND
    return head.startswith((b"\x1a\x45\xdf\xa3", b"\0\0\1\xba", b"FLV\1")) or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")


def suffix_of(name: str) -> str:
    """The ending of a file's name in lower case, with its dot."""
    return PurePosixPath(name).suffix.lower()


def kind_of(name: str) -> FileKind | None:
    """The kind of a file by its name; None for other files."""
    suffix = suffix_of(name)
    if suffix in PICTURES:
        return "picture"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if is_archive(name):
        return "archive"
    return "other picture" if suffix in OTHER_PICTURES else None
