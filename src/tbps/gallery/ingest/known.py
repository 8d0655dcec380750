"""What a gallery holds already, by content and by path, and how a file on the disk differs from it."""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, final

from tbps.gallery.ingest.footage import place_hash
from tbps.gallery.ingest.sources import Candidate
from tbps.gallery.store.columns import row_metadata
from tbps.gallery.store.schema import Kind
from tbps.gallery.store.table import KnownRow
from tbps.gallery.suffixes import is_archive
from tbps.preprocess.names import composed

_OF_CROP = ("box_x", "box_y", "box_width", "box_height", "quality", "frame", "offset_seconds", "video", "tracklet")


def path_of(root: str, name: str) -> str | None:
    """The path of a picture, equal for composed and decomposed letters; None for a picture without a file of its own."""
    return composed(f"{root}/{name}") if root else None


@final
class Known:
    """The rows of a gallery by the hash of their content; those of this run are added."""

    def __init__(self, rows: dict[str, KnownRow]) -> None:
        self.renew(rows)

    def renew(self, rows: dict[str, KnownRow]) -> None:
        """Takes other rows in place of all that was known."""
        self._rows = rows
        self._asked: Collection[str] = ()
        self._places: dict[str, tuple[Any, list[Any]]] = {}  # of the rows that were asked for
        self._by_path: dict[str, list[str]] = {}
        self._lost: dict[str, list[str]] | None = None  # paths of scenes and videos that are gone, by the last part of their names
        for content_hash, row in rows.items():
            self._note(content_hash, row)

    def __contains__(self, content_hash: str) -> bool:
        return content_hash in self._rows

    def __getitem__(self, content_hash: str) -> KnownRow:
        return self._rows[content_hash]

    def get(self, content_hash: str) -> KnownRow | None:
        return self._rows.get(content_hash)

    def add(self, content_hash: str, row: KnownRow) -> None:
        self._rows[content_hash] = row
        self._note(content_hash, row)

    def items(self) -> Iterator[tuple[str, KnownRow]]:
        yield from self._rows.items()

    def paths(self) -> Mapping[str, Sequence[str]]:
        """The content hashes of the rows of each path: one of a picture, several of a scene or video."""
        return self._by_path

    def parted(self, candidate: Candidate, file_hash: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The rows of a file's path that show what the file holds now, and those that show what it held before."""
        path = path_of(candidate.root, candidate.name)
        own, former = list[str](), list[str]()
        for each in self._by_path.get(path, ()) if path is not None else ():
            (own if self.shows(each, file_hash) else former).append(each)
        return tuple(own), tuple(former)

    def shows(self, content_hash: str, file_hash: str) -> bool:
        """Whether a row is that file, or a person cut out of it."""
        if content_hash == file_hash:
            return True
        place = _place(self._rows[content_hash])
        return place is not None and content_hash == place_hash(file_hash, *place)

    def shown(self, hashes: Collection[str], file_hash: str) -> Iterator[str]:
        """Those of some rows that show people who were cut out of a file."""
        if hashes is not self._asked:
            self._asked, self._places = hashes, {each: place for each in hashes if (place := _place(self._rows[each])) is not None}
        yield from (each for each, place in self._places.items() if each == place_hash(file_hash, *place))

    def elsewhere(self, name: str, file_hash: str, members: Mapping[str, frozenset[str]]) -> Iterator[str]:
        """The rows of people who were cut out of that file under paths where there is no such file any more.

        members: as for `is_gone`, the same for the whole run.
        """
        if self._lost is None:
            self._lost = {}
            for path, hashes in self._by_path.items():
                row = self._rows[hashes[0]]
                if any(crop_columns(self._rows[each]) for each in hashes) and is_gone(f"{row.root}/{row.source}", members):
                    self._lost.setdefault(path.rpartition("/")[2], []).append(path)
        base = composed(name).rpartition("/")[2]
        others = (path for other, paths in self._lost.items() if other != base for path in paths)
        for path in (*self._lost.get(base, ()), *others):
            if found := [each for each in self._by_path[path] if self.shows(each, file_hash)]:
                yield from found
                return

    def _note(self, content_hash: str, row: KnownRow) -> None:
        if (path := path_of(row.root, row.source)) is not None:
            self._by_path.setdefault(path, []).append(content_hash)


def _place(row: KnownRow) -> tuple[Any, list[Any]] | None:
    """The frame and box of a person; None for a picture that is taken whole."""
    columns = crop_columns(row)
    sides = ("box_x", "box_y", "box_width", "box_height")
    return (columns.get("frame", 0), [columns.get(side) for side in sides]) if columns else None


def crop_columns(row: KnownRow) -> dict[str, Any]:
    """The columns that say where a person was cut out; empty for a picture that is taken whole."""
    if '"box_width"' not in row.attributes:
        return {}
    attributes = json.loads(row.attributes)
    return {name: attributes[name] for name in _OF_CROP if name in attributes}


def correction(known: KnownRow, given: Candidate, kinds: Mapping[str, Kind], start: datetime | None = None) -> dict[str, Any]:
    """The columns of a row that a file's metadata say otherwise now, with their new values; empty where nothing does.

    A metadata line replaces all that was said before, but the camera stays where the line names none: it may come from --camera
    (null in the line takes it away). Without a line only a given camera counts, and a time of capture where there was none. start:
    the time at which a video began, as it is given now.
    """
    own = crop_columns(known)
    columns = {**given.columns, **own}
    offset = own.get("offset_seconds")
    if offset is not None:  # the time of a crop is that of its frame
        columns.pop("captured_at", None)
        if start is not None:
            columns["captured_at"] = (start + timedelta(seconds=round(offset, 3))).isoformat()
    told = row_metadata(columns, kinds)
    new: dict[str, Any] = {"camera": told.camera} if "camera" in columns else {}
    if "captured_at" in columns or (given.described and offset is None):
        new["captured_at"] = told.captured_at
    if given.described:
        new |= {"identity": told.identity, "attributes": told.attributes}
    elif known.captured_at is not None and start is None:
        new.pop("captured_at", None)
    changed = {name: value for name, value in new.items() if value != getattr(known, name)}
    if "attributes" in changed:
        changed |= {name: told.extras.get(name) for name in kinds}
    return changed


def is_gone(path: str, members: Mapping[str, frozenset[str]]) -> bool:
    """Whether there certainly is no such file any more; members: the pictures of archives that were listed to their end.

    What cannot be looked at (no permission, an archive that was not listed) counts as there.
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
