"""Table versions that are open for searches: the newest, and the few before it, which further pages of results need."""

import threading
from collections.abc import Collection, Sequence
from typing import final

from tbps.errors import GalleryError, QueryError
from tbps.gallery.search.nearest import Nearest
from tbps.gallery.store.staleness import check_newest, state_of
from tbps.gallery.store.table import Table
from tbps.gallery.store.version import Version

_VERSIONS_KEPT = 4


@final
class Versions:
    """Opens and keeps the versions of a table; thread-safe, also while another process adds rows.

    The embeddings stay in memory; the rows that a new version adds are read when it is opened. While the table only grows, its
    last few versions stay open.

    hidden: ids of rows that are being erased; searches do not return them.
    """

    def __init__(self, table: Table, nearest: Nearest | None = None, hidden: Collection[str] = ()) -> None:
        self._table, self._hidden = table, hidden
        self._nearest = nearest or Nearest()
        self._kept: dict[int, Version] = {}
        self._state = state_of(table.folder)
        self._refreshing = threading.Lock()

    def newest(self) -> Version:
        """The newest version. Raises StaleVersionError if the table was replaced since the last call."""
        with self._refreshing:
            try:
                number = self._table.version_number
                if number not in self._kept:
                    number = self._open()
            except GalleryError as error:
                before, self._state = self._state, state_of(self._table.folder)
                check_newest(self._table.folder, before, error)
                raise
            return self._kept[number]

    def at(self, number: int | None, within: Sequence[str] | None = None) -> Version:
        """A recently searched version; the newest if `number` is None. Raises QueryError if it is no longer kept.

        within: the cameras that the caller may see; their versions have numbers of their own (see `Scope.version`).
        """
        newest = self.newest()
        if number is None:
            return newest
        if within is None:
            if (found := self._kept.get(number)) is not None:
                return found
            raise QueryError(f"version {number} of the gallery is no longer kept, the newest is {newest.number}; search again")
        for version in reversed(self._kept.values()):
            if version.scope(within).version == number:
                return version
        raise QueryError(f"version {number} of the gallery is no longer kept; search again")

    def prepare(self) -> bool:
        """Reads the newest version into memory and builds its cells if needed; returns whether searches are approximate."""
        newest = self.newest()
        newest.hold()
        return self._nearest.prepare(newest.rows)

    def _open(self) -> int:
        """Opens the newest version; returns its number."""
        latest = next(reversed(self._kept.values()), None)
        version = self._table.open_version(latest, self._hidden, self._nearest.shortlist)
        # Another room means that rows were rewritten or erased: the files of the older versions are deleted, and erased rows must
        # not be shown again.
        alike = {number: kept for number, kept in self._kept.items() if kept.rows.room is version.rows.room}
        if len(alike) < len(self._kept):
            self._nearest.forget()
        self._kept = dict([*alike.items(), (version.number, version)][-_VERSIONS_KEPT:])
        self._state = version.opened
        return version.number
