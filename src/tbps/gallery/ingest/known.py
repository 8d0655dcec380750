"""In-memory index of a gallery's images by content hash and by path, and of its finished scenes and videos."""

import json
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, final

from tbps.gallery.ingest.footage import CROP_COLUMNS
from tbps.gallery.ingest.hashes import camera_hash, crop_hash
from tbps.gallery.ingest.paths import is_gone, path_of
from tbps.gallery.ingest.record import Finished, Record
from tbps.gallery.ingest.sources.candidates import Candidate
from tbps.gallery.store.table import KnownRow
from tbps.preprocess.names import composed

_SIDES = ("box_x", "box_y", "box_width", "box_height")


class AtPath(NamedTuple):
    """Content hashes of the rows of one path. current: rows of its present content; former: rows of replaced content."""

    current: tuple[str, ...] = ()
    former: tuple[str, ...] = ()


@final
class Known:
    """The images, scenes and videos that a gallery holds, including rows of the present run.

    Reader threads and the writer share it; every method holds its lock.
    """

    def __init__(self, rows: Mapping[str, KnownRow], record: Record) -> None:
        """rows: by content hash."""
        self._lock = threading.RLock()
        self._record = record
        self.replace(rows)

    def replace(self, rows: Mapping[str, KnownRow]) -> None:
        """Replaces all rows, since another process has rewritten the table."""
        with self._lock:
            self._rows: dict[str, KnownRow] = {}
            self._by_path: dict[str, list[str]] = {}
            self._crops: tuple[Collection[str], dict[str, tuple[Any, list[Any]]]] = (), {}
            self._gone: dict[str, list[str]] | None = None
            for content_hash, row in rows.items():
                self.add(content_hash, row)

    def add(self, content_hash: str, row: KnownRow) -> None:
        with self._lock:
            self._rows[content_hash] = row
            if (path := path_of(row.root, row.source)) is not None:
                self._by_path.setdefault(path, []).append(content_hash)

    def __contains__(self, content_hash: str) -> bool:
        with self._lock:
            return content_hash in self._rows

    def __getitem__(self, content_hash: str) -> KnownRow:
        with self._lock:
            return self._rows[content_hash]

    def get(self, content_hash: str) -> KnownRow | None:
        with self._lock:
            return self._rows.get(content_hash)

    def paths(self) -> Mapping[str, Sequence[str]]:
        """Path -> content hashes of its rows: one for a picture, several for a scene or video."""
        with self._lock:
            return {path: tuple(hashes) for path, hashes in self._by_path.items()}

    def held_as(self, content: str, camera: str | None, within: Collection[str] | None) -> str | None:
        """The hash under which the gallery holds this content, None when it does not.

        within: the cameras to which the caller may add; a row of another camera is then not revealed.
        """
        at_camera = camera_hash(content, camera)
        with self._lock:
            if at_camera in self._rows:
                return at_camera
            row = self._rows.get(content)
        return content if row is not None and (within is None or row.camera == camera) else None

    def at_path(self, candidate: Candidate, file_hash: str) -> AtPath:
        """The rows of a candidate's path, separated into those of its present content and those of former content."""
        path = path_of(candidate.root, candidate.name)
        current, former = list[str](), list[str]()
        with self._lock:
            for each in self._by_path.get(path, ()) if path is not None else ():
                (current if self._shows(each, file_hash) else former).append(each)
        return AtPath(tuple(current), tuple(former))

    def crops_of(self, hashes: Collection[str], file_hash: str) -> tuple[str, ...]:
        """The subset of the rows `hashes` that are crops of a file. Cached for repeated calls with the same collection."""
        with self._lock:
            if hashes is not self._crops[0]:
                places = {each: place for each in hashes if (place := _place(self._rows[each])) is not None}
                self._crops = hashes, places
            return tuple(each for each, place in self._crops[1].items() if each == crop_hash(file_hash, *place))

    def crops_at_gone_paths(self, name: str, file_hash: str, members: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
        """The crops of a file that were indexed from a path whose file no longer exists.

        members: as in `is_gone`, the same during a whole run. Paths that end in the file's own name come first.
        """
        if self._gone is None:
            self._gone = self._find_gone(members)
        base = composed(name).rpartition("/")[2]
        others = (path for other, paths in self._gone.items() if other != base for path in paths)
        with self._lock:
            for path in (*self._gone.get(base, ()), *others):
                if found := tuple(each for each in self._by_path.get(path, ()) if self._shows(each, file_hash)):
                    return found
        return ()

    def is_finished(self, finished: Finished, same_metadata: bool = False) -> bool:
        """Whether a scene or video was searched completely; same_metadata: and had the same metadata then."""
        with self._lock:
            return finished.key in self._record and not (same_metadata and self._record.differs(finished))

    def finished_among(self, keys: Iterable[str]) -> list[bool]:
        """For each key whether its scene or video is finished, also by other processes."""
        with self._lock:
            self._record.refresh()
            return [key in self._record for key in keys]

    def refresh_finished(self) -> None:
        """Reads which scenes and videos other processes have finished since."""
        with self._lock:
            self._record.refresh()

    def add_finished(self, finished: Mapping[str, Mapping[str, Any]]) -> None:
        """Records scenes and videos as finished, key -> metadata; under the gallery's lock. Raises StorageError."""
        with self._lock:
            self._record.append(finished)

    def correct_finished(self, finished: Mapping[str, Mapping[str, Any]]) -> None:
        """Replaces the recorded metadata of finished scenes and videos; under the gallery's lock. Raises StorageError."""
        with self._lock:
            self._record.correct(finished)

    def _shows(self, content_hash: str, file_hash: str) -> bool:
        """Whether a row is that file, or a crop of it."""
        if content_hash == file_hash:
            return True
        place = _place(self._rows[content_hash])
        return place is not None and content_hash == crop_hash(file_hash, *place)

    def _find_gone(self, members: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
        """Last part of a name -> paths of scenes and videos that are gone. Does not hold the lock while it accesses the disk."""
        with self._lock:
            crops = {
                path: self._rows[hashes[0]]
                for path, hashes in self._by_path.items()
                if any(crop_columns(self._rows[each]) for each in hashes)
            }
        gone: dict[str, list[str]] = {}
        for path, row in crops.items():
            if is_gone(f"{row.root}/{row.source}", members):
                gone.setdefault(path.rpartition("/")[2], []).append(path)
        return gone


def crop_columns(row: KnownRow) -> dict[str, Any]:
    """The stored `CROP_COLUMNS` of a crop, such as its box and frame; empty for a whole picture."""
    if '"box_width"' not in row.attributes:
        return {}
    attributes = json.loads(row.attributes)
    return {name: attributes[name] for name in CROP_COLUMNS if name in attributes}


def _place(row: KnownRow) -> tuple[Any, list[Any]] | None:
    """The frame and box of a crop; None for a whole picture."""
    columns = crop_columns(row)
    return (columns.get("frame", 0), [columns.get(side) for side in _SIDES]) if columns else None
