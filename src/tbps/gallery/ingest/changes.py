"""Finds differences between the files on disk and the rows of a gallery; reports them, or applies them with `refresh`.

changed     the file at a path is not the picture or video that was indexed from it
moved       indexed content is no longer at its path, and was found at another one
corrected   the metadata of an indexed picture have changed
gone        a path below an indexed folder, or below the former folder of moved content, no longer exists

With `refresh`, the rows of changed files are deleted (also from an unfinished re-embedding, but not from snapshots), and moved and
corrected rows get their new paths and columns. All changes are made in one step at the end of a run: a new table is written beside
the old one and replaces it. If a run is killed, the old rows remain, and the next run finds the same differences again. Without
`refresh`, nothing is changed, and new content at a known path is not added. Rows of files that are gone are never deleted
automatically, since a drive may be unplugged.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tbps.errors import StorageError
from tbps.gallery.ingest.known import Known, crop_columns
from tbps.gallery.ingest.paths import is_gone, path_of
from tbps.gallery.ingest.row import id_of
from tbps.gallery.ingest.sources.candidates import Candidate, Sources
from tbps.gallery.ingest.sources.folders import Failure
from tbps.gallery.store.layout import REEMBED_FILE, bytes_on_disk, manifest_at, next_table, replace_head, table_of
from tbps.gallery.store.manifest import MANIFEST_FILE
from tbps.preprocess.names import composed

_NAMED_COLUMNS = ("identity", "camera", "captured_at")


@dataclass(frozen=True, slots=True)
class Differences:
    """Differences of a run as (name, description); see the module. duplicates: files whose content is stored from another path."""

    changed: tuple[Failure, ...] = ()
    moved: tuple[Failure, ...] = ()
    corrected: tuple[Failure, ...] = ()
    gone: tuple[Failure, ...] = ()
    duplicates: tuple[Failure, ...] = ()


@dataclass(slots=True)
class Changes:
    """Collects differences during a run. Rows are identified by their content hash.

    stale: path -> name of the file, rows of its former content; located: row -> files at other paths with the same content;
    corrected: row -> columns with new values; corrected_names: row -> name of the file with these metadata; elsewhere: row ->
    columns with new values according to the metadata of the first of its files in `located`.
    """

    known: Known
    stale: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    located: dict[str, list[Candidate]] = field(default_factory=dict)
    corrected: dict[str, dict[str, Any]] = field(default_factory=dict)
    corrected_names: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, dict[str, Any]] = field(default_factory=dict)

    def note_former(self, candidate: Candidate, former: tuple[str, ...]) -> None:
        """Records that the file of a candidate no longer has the content of the rows `former`."""
        path = path_of(candidate.root, candidate.name)
        if former and path is not None:
            self.stale[path] = candidate.name, former

    def note_found(self, content_hash: str, candidate: Candidate) -> bool:
        """Records a file with the content of a row; returns whether it is at the row's own path."""
        row = self.known[content_hash]
        if (row.root, row.source) == (candidate.root, candidate.name):
            return True
        here = path_of(candidate.root, candidate.name)
        if here is not None and here == path_of(row.root, row.source) and not is_gone(f"{row.root}/{row.source}", {}):
            return True  # the same file, indexed through another folder
        self.located.setdefault(content_hash, []).append(candidate)
        return False

    def note_correction(self, content_hash: str, candidate: Candidate, columns: dict[str, Any]) -> None:
        """Records that the metadata of a candidate have new values for these columns of a row."""
        located = self.located.get(content_hash, [])
        if columns and located and located[0] is candidate:
            self.elsewhere[content_hash] = columns
        elif columns and not any(each is candidate for each in located):
            self.corrected[content_hash], self.corrected_names[content_hash] = columns, candidate.name

    def replaced(self) -> set[str]:
        """The rows whose content is no longer at their path."""
        return {each for _, hashes in self.stale.values() for each in hashes if each in self.known}

    def settle(self, sources: Sources) -> "Settled":
        """Classifies the differences, after every file was read."""
        replaced = self.replaced()
        moved: dict[str, Candidate] = {}
        duplicates: dict[str, str] = {}
        for content_hash, found in self.located.items():
            if (row := self.known.get(content_hash)) is None:
                continue  # forgotten in the meantime
            first, path = found[0], f"{row.root}/{row.source}" if row.root and found[0].root else None
            if path is not None and (content_hash in replaced or is_gone(path, sources.members)):
                moved[content_hash] = first
                if content_hash in self.elsewhere:
                    self.corrected[content_hash] = self.elsewhere[content_hash]
                    self.corrected_names[content_hash] = first.name
            root, kept = (first.root, first.name) if content_hash in moved else (row.root, row.source)
            kept = f"{root}/{kept}" if root and root != first.root else kept  # another folder may have a file of the same name
            copies = found[1:] if content_hash in moved else found
            duplicates |= {copy.name: f"has the same content as {kept}, which was kept" for copy in copies}
        return Settled(self, moved, frozenset(replaced - moved.keys()), duplicates, self._gone(sources, moved))

    def _gone(self, sources: Sources, moved: Mapping[str, Candidate]) -> dict[str, str]:
        """Known paths whose file no longer exists, below the walked folders and the former folders of moved content."""
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
    """The classified differences of a run.

    moved: row -> file at its new path; erased: rows of replaced content; duplicates: name -> reason; gone: path -> reason.
    """

    changes: Changes
    moved: Mapping[str, Candidate]
    erased: frozenset[str]
    duplicates: Mapping[str, str]
    gone: Mapping[str, str]

    def former(self) -> dict[str, tuple[str, str]]:
        """Id -> (root, source) of the rows to be deleted."""
        rows = {each: self.changes.known[each] for each in self.erased}
        return {id_of(each): (row.root, row.source) for each, row in rows.items()}

    def differences(self) -> Differences:
        """The differences in the form of a report."""
        known, corrected = self.changes.known, dict[str, list[str]]()
        for content_hash, columns in self.changes.corrected.items():
            own = [name for name in _NAMED_COLUMNS if name in columns]
            own += ["other columns"] if "attributes" in columns else []
            named = corrected.setdefault(self.changes.corrected_names[content_hash], [])
            named += [name for name in own if name not in named]
        moved = {item.name: f"was indexed as {known[each].root}/{known[each].source}" for each, item in self.moved.items()}
        sources = {path: known[hashes[0]].source for path, hashes in known.paths().items() if path in self.gone}
        return Differences(
            tuple((name, "has other content than when it was indexed") for name, _ in self.changes.stale.values()),
            tuple(moved.items()),
            tuple((name, f"was indexed with other metadata ({', '.join(columns)})") for name, columns in corrected.items()),
            tuple((sources[path], reason) for path, reason in self.gone.items()),
            tuple(self.duplicates.items()),
        )

    def updates(self) -> dict[str, dict[str, Any]]:
        """Id -> columns with new values."""
        found = {id_of(each): dict(columns) for each, columns in self.changes.corrected.items() if each not in self.erased}
        for each, item in self.moved.items():
            row = self.changes.known[each]
            columns = found.setdefault(id_of(each), {})
            columns |= {"source": item.name, "root": item.root}
            if crop_columns(row).get("video") == composed(row.source):
                attributes = json.loads(columns.get("attributes", row.attributes)) | {"video": composed(item.name)}
                columns["attributes"] = json.dumps(attributes, sort_keys=True, ensure_ascii=False)
                columns["video"] = composed(item.name)
        return found


def apply_changes(folder: Path, former: Mapping[str, tuple[str, str]], updates: Mapping[str, Mapping[str, Any]]) -> int:
    """Rewrites the gallery's table without some rows and with new values in others; returns how many rows were deleted.

    former: id -> (root, source) of rows to delete; a row stays if another process has changed its root or source since. updates:
    id -> columns with new values. Must be called under the gallery's lock. The table of an unfinished re-embedding is rewritten
    first, so that the next run repeats everything after a kill in between.

    Raises StorageError when there is no room for the copy; nothing is changed then.
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
            f"gallery {folder} was not refreshed: rewriting its table needs {needed:,} bytes, but {free:,} are free; "
            "free space and run again"
        )
    for head, table in tables:
        name = next_table(folder)
        table.copy_changed(ids, updates, name)
        replace_head(head, manifest_at(head).model_copy(update={"table": name}))
    return len(ids)
