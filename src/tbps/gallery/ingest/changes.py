"""How the files on the disk differ from what a gallery holds, told after a run and, with `--refresh`, taken over.

changed     a path holds another picture or video than the one that was indexed from it
moved       what was indexed from a path that is not there any more was found under another one
corrected   the metadata of a picture that was indexed say something else now
gone        a path below an indexed folder, or below the former place of a moved one, is no longer there

Taken over are changed (the rows of the former content go, from the gallery and an unfinished re-embedding; snapshots keep theirs),
moved (the new path) and corrected (the new columns), all in one step at the end of the run: a table with all of it is written
beside the old one and takes its place. A killed run leaves the old rows as they were and the next one finds the same differences
again. Without `refresh` nothing of this is done, and new content under a known path is not added. Rows of files that are gone are
never removed by themselves, since a drive may be unplugged.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tbps.errors import StorageError
from tbps.gallery.ingest.folders import Failure
from tbps.gallery.ingest.known import Known, crop_columns, is_gone, path_of
from tbps.gallery.ingest.sources import Candidate, Sources
from tbps.gallery.store.layout import REEMBED_FILE, bytes_on_disk, manifest_at, next_table, replace_head, table_of
from tbps.gallery.store.manifest import MANIFEST_FILE
from tbps.preprocess.names import composed

_NAMED_COLUMNS = ("identity", "camera", "captured_at")


@dataclass(frozen=True, slots=True)
class Differences:
    """(name, what is different) for each file; see the module's docstring. duplicates: content that is indexed from elsewhere."""

    changed: tuple[Failure, ...] = ()
    moved: tuple[Failure, ...] = ()
    corrected: tuple[Failure, ...] = ()
    gone: tuple[Failure, ...] = ()
    duplicates: tuple[Failure, ...] = ()


@dataclass(slots=True)
class Changes:
    """What is found during a run. stale: rows of former content by path; located: rows found under another path, and where."""

    known: Known
    stale: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    located: dict[str, list[Candidate]] = field(default_factory=dict)
    corrected: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # of corrected rows
    otherwise: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # what is said of rows under the path where they were located

    def former(self, candidate: Candidate, stale: tuple[str, ...]) -> None:
        """The path of a candidate holds other content now than these rows."""
        path = path_of(candidate.root, candidate.name)
        if stale and path is not None:
            self.stale[path] = candidate.name, stale

    def found(self, content_hash: str, candidate: Candidate) -> bool:
        """A known row was met again; whether under the path that it has."""
        row = self.known[content_hash]
        if (row.root, row.source) == (candidate.root, candidate.name):
            return True
        here = path_of(candidate.root, candidate.name)
        if here is not None and here == path_of(row.root, row.source) and not is_gone(f"{row.root}/{row.source}", {}):
            return True  # the same file by way of another folder
        self.located.setdefault(content_hash, []).append(candidate)
        return False

    def correct(self, content_hash: str, candidate: Candidate, columns: dict[str, Any]) -> None:
        """The metadata of a row that was met say something else than its columns."""
        located = self.located.get(content_hash, [])
        if columns and located and located[0] is candidate:
            self.otherwise[content_hash] = columns
        elif columns and not any(each is candidate for each in located):
            self.corrected[content_hash], self.names[content_hash] = columns, candidate.name

    def replaced(self) -> set[str]:
        """The rows of content that is no longer at its path."""
        return {each for _, hashes in self.stale.values() for each in hashes if each in self.known}

    def settle(self, sources: Sources) -> "Settled":
        """Decides what each difference is, once everything was looked at."""
        replaced = self.replaced()
        moved: dict[str, Candidate] = {}
        duplicates: dict[str, str] = {}
        for content_hash, met in self.located.items():
            if (row := self.known.get(content_hash)) is None:
                continue  # forgotten meanwhile
            first, path = met[0], f"{row.root}/{row.source}" if row.root and met[0].root else None
            if path is not None and (content_hash in replaced or is_gone(path, sources.members)):
                moved[content_hash] = first
                if content_hash in self.otherwise:
                    self.corrected[content_hash], self.names[content_hash] = self.otherwise[content_hash], first.name
            root, kept = (first.root, first.name) if content_hash in moved else (row.root, row.source)
            kept = f"{root}/{kept}" if root and root != first.root else kept  # of another folder, which may have the same name
            copies = met[1:] if content_hash in moved else met
            duplicates |= {copy.name: f"has the same content as {kept}, which was kept" for copy in copies}
        return Settled(self, moved, frozenset(replaced - moved.keys()), duplicates, self._gone(sources, moved))

    def _gone(self, sources: Sources, moved: Mapping[str, Candidate]) -> dict[str, str]:
        """The paths below the folders that were gone through, and below former places, at which there is nothing any more."""
        roots = {*sources.folders, *(self.known[each].root for each in moved)}
        whole = tuple(f"{composed(place).rstrip('/')}/" for place in (*roots, *sources.members))
        there = {path_of(item.root, item.name) for item in (*sources.candidates, *sources.videos)}
        found: dict[str, str] = {}
        for path, hashes in self.known.paths().items():
            if not path.startswith(whole) or path in there:
                continue
            row = self.known[hashes[0]]
            if not all(each in moved for each in hashes) and is_gone(f"{row.root}/{row.source}", sources.members):
                found[path] = f"is no longer in {row.root}"
        return found


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome: rows that are to have another path, rows that are to go, and files to tell of."""

    changes: Changes
    moved: Mapping[str, Candidate]
    erased: frozenset[str]
    duplicates: Mapping[str, str]
    gone: Mapping[str, str]

    def former(self) -> dict[str, tuple[str, str]]:
        """The ids of the rows that are to go, with the root and source at which they are known."""
        rows = {each: self.changes.known[each] for each in self.erased}
        return {each[:24]: (row.root, row.source) for each, row in rows.items()}

    def differences(self) -> Differences:
        known, corrected = self.changes.known, dict[str, list[str]]()
        for content_hash, columns in self.changes.corrected.items():
            own = [name for name in _NAMED_COLUMNS if name in columns]
            own += ["other columns"] if "attributes" in columns else []
            seen = corrected.setdefault(self.changes.names[content_hash], [])
            seen += [name for name in own if name not in seen]
        moved = {item.name: f"was indexed as {known[each].root}/{known[each].source}" for each, item in self.moved.items()}
        sources = {path: known[hashes[0]].source for path, hashes in known.paths().items() if path in self.gone}
        return Differences(
            tuple((name, "holds something else than what was indexed from it") for name, _ in self.changes.stale.values()),
            tuple(moved.items()),
            tuple((name, f"was indexed with other metadata ({', '.join(columns)})") for name, columns in corrected.items()),
            tuple((sources[path], reason) for path, reason in self.gone.items()),
            tuple(self.duplicates.items()),
        )

    def updates(self) -> dict[str, dict[str, Any]]:
        """The columns that get other values, by row id."""
        found = {each[:24]: dict(columns) for each, columns in self.changes.corrected.items() if each not in self.erased}
        for each, item in self.moved.items():
            row = self.changes.known[each]
            columns = found.setdefault(each[:24], {})
            columns |= {"source": item.name, "root": item.root}
            if crop_columns(row).get("video") == composed(row.source):
                attributes = json.loads(columns.get("attributes", row.attributes)) | {"video": composed(item.name)}
                columns["attributes"] = json.dumps(attributes, sort_keys=True, ensure_ascii=False)
                columns["video"] = composed(item.name)
        return found


def take_over(folder: Path, former: Mapping[str, tuple[str, str]], updates: Mapping[str, Mapping[str, Any]]) -> int:
    """Writes the gallery's table anew without some rows and with other values of some columns, by row id; how many rows went.

    former: the rows that are to go, which stay where another process has given them another root or source meanwhile. Under the
    lock. The table of an unfinished re-embedding comes first, so that a kill in between is seen by the next run.
    Raises StorageError where there is no room for the copy: nothing is changed then.
    """
    if not (former or updates) or (own := table_of(folder / MANIFEST_FILE)) is None:
        return 0
    found = own.rows(list(former), ["id", "root", "source"]).to_pylist()
    ids = frozenset(row["id"] for row in found if former[row["id"]] == (row["root"], row["source"]))
    heads = [head for head in (folder / REEMBED_FILE, folder / MANIFEST_FILE) if head.is_file()]
    tables = [(head, table) for head in heads if (table := table_of(head)) is not None and table.count_of(ids | updates.keys())]
    needed = sum(bytes_on_disk(folder / f"{table.name}.lance") for _, table in tables)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise StorageError(
            f"gallery {folder} was not refreshed: it is written anew for that, which needs {needed:,} bytes, but {free:,} are "
            "free; free space and run again"
        )
    for head, table in tables:
        name = next_table(folder)
        table.copy_changed(ids, updates, name)
        replace_head(head, manifest_at(head).model_copy(update={"table": name}))
    return len(ids)
