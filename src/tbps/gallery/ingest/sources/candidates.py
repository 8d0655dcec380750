"""Candidates for indexing, each one picture or video, and the sources that they were found in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from tbps.gallery.ingest.sources.archives import Member
from tbps.gallery.ingest.sources.folders import Failure


@dataclass(frozen=True, slots=True)
class Admission:
    """Rules for pictures from an untrusted sender, alone or in an archive.

    most_bytes: the largest file that is read. open: decodes the bytes of a file; raises ImageError on a picture that is refused.
    """

    most_bytes: int
    open: Callable[[bytes], Image.Image]


@dataclass(frozen=True, slots=True)
class Named:
    """A file that is stored under another name; its folder is not stored.

    With an admission, a picture is identified by its pixels, not by the bytes of its file.
    """

    name: str
    file: Path
    admission: Admission | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One picture or video that may be indexed.

    name: relative to `root`, such as "lobby/1.jpg", or "a.tar/1.jpg" in an archive; root: a folder, "" for a picture without a
    file; picture: where it is read from, or the picture itself; columns: its metadata as given; described: whether it has a
    metadata line, object or mapping of its own.
    """

    name: str
    root: str
    picture: Path | Member | Image.Image
    columns: Mapping[str, Any] = field(default_factory=dict)
    admission: Admission | None = None
    described: bool = False


@dataclass(frozen=True, slots=True)
class Sources:
    """The candidates in a fixed order, with the files that cannot be indexed.

    failed: (name, reason); notes: general remarks; left_out: kind of file -> how many were left out, and an example; folders:
    those that were walked completely; members: path of an archive that was listed to its end -> names of its pictures.
    """

    candidates: tuple[Candidate, ...]
    failed: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    videos: tuple[Candidate, ...] = ()
    left_out: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    members: Mapping[str, frozenset[str]] = field(default_factory=dict)
