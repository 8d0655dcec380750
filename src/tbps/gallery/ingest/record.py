"""Records which scenes and videos were completely searched for people, so that later runs skip them: GALLERY/footage.jsonl.

One line per scene or video, a JSON list of two digests: the key (of the file and the settings that affect its crops) and a digest
of its metadata. The file holds no name, time or picture. It is kept when images are forgotten, so that the next run does not add
forgotten people again. A snapshot has a copy, which `restore` brings back. An export has none, since an import must not prevent
videos from being searched. Delete the file to search everything again.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, final

from tbps.gallery.ingest.hashes import digest_of
from tbps.storage import writing_to


class Finished(NamedTuple):
    """A scene or video that was completely searched. metadata: columns of which the record keeps a digest."""

    key: str
    metadata: Mapping[str, Any]


@final
class Record:
    """The lines of footage.jsonl in memory. Other processes may add lines to the file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._finished: dict[str, str] = {}
        self._seen: tuple[int, int, int] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Reads the file again if it has changed."""
        if (seen := self._state()) == self._seen:
            return
        finished: dict[str, str] = {}
        for line in self._file.read_bytes().splitlines() if seen else []:
            try:
                key, digest = json.loads(line)
                finished[key] = digest  # the last line of a key counts: metadata may have been corrected
            except (ValueError, TypeError):  # the writer was killed within this line
                continue
        self._finished, self._seen = finished, seen

    def __contains__(self, key: str) -> bool:
        return key in self._finished

    def differs(self, finished: Finished) -> bool:
        """Whether a recorded scene or video had other metadata when it was searched."""
        return self._finished[finished.key] != _metadata_digest(finished.metadata)

    def append(self, finished: Mapping[str, Mapping[str, Any]]) -> None:
        """Records new keys with their metadata, after their rows are committed; under the gallery's lock.

        Raises StorageError on a full or read-only disk.
        """
        self.refresh()
        self._write({key: _metadata_digest(columns) for key, columns in finished.items() if key not in self._finished})

    def correct(self, finished: Mapping[str, Mapping[str, Any]]) -> None:
        """Replaces the metadata of recorded keys. Raises as `append`."""
        self.refresh()
        digests = {key: _metadata_digest(columns) for key, columns in finished.items()}
        self._write({key: digest for key, digest in digests.items() if self._finished.get(key) not in (None, digest)})

    def _write(self, digests: Mapping[str, str]) -> None:
        if not digests:
            return
        # The leading line break ends a line whose writer was killed.
        text = "".join(f"\n{json.dumps(entry)}" for entry in digests.items()) + "\n"
        with writing_to(self._file.parent), self._file.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        self._finished |= digests
        self._seen = self._state()

    def _state(self) -> tuple[int, int, int] | None:
        try:
            facts = self._file.stat()
        except FileNotFoundError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size


def _metadata_digest(columns: Mapping[str, Any]) -> str:
    return digest_of(json.dumps(dict(columns), sort_keys=True, default=str))[:16]
