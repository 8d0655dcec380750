"""The gallery: a folder of images with their embeddings and metadata that can be searched by description or picture.

gallery = Gallery.open("my-gallery", model)
gallery.add("photos/")
hits = gallery.search("a woman in a red coat", k=10, where="camera = 'lobby'")
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float

from tbps.errors import GalleryError, QueryError, SettingsError
from tbps.gallery.encoder import Encoder, Picture
from tbps.gallery.ingest.context import IngestOptions
from tbps.gallery.ingest.footage import Footage
from tbps.gallery.ingest.ingest import OnProgress, ingest
from tbps.gallery.ingest.report import IngestReport
from tbps.gallery.ingest.sources.candidates import Named
from tbps.gallery.ingest.sources.find import find_sources
from tbps.gallery.lifecycle.forget import ForgetReport, Selection, forget
from tbps.gallery.lifecycle.info import GalleryInfo, describe
from tbps.gallery.lifecycle.retention import retain
from tbps.gallery.search.calibration import calibration_of
from tbps.gallery.search.check import RecallReport, check_recall
from tbps.gallery.search.compose import Sample, compose, ids_of
from tbps.gallery.search.conditions import embeddings_of, passing_of, position_of
from tbps.gallery.search.explain import Explanation, explain
from tbps.gallery.search.find import find
from tbps.gallery.search.page import Page
from tbps.gallery.search.query import Query, Text
from tbps.gallery.search.summary import Summary, members, summarise
from tbps.gallery.search.versions import Versions
from tbps.gallery.store.erasure import erasing
from tbps.gallery.store.hit import Hit
from tbps.gallery.store.layout import ERASURE_FILE
from tbps.gallery.store.lock import LOCK_FILE, PATIENCE
from tbps.gallery.store.manifest import MANIFEST_FILE, check_model, manifest_of, read_manifest, recorded, write_manifest
from tbps.gallery.store.scope import Scope
from tbps.gallery.store.staleness import check_newest, read_again, reading, state_of
from tbps.gallery.store.table import Table
from tbps.gallery.store.version import Version
from tbps.gallery.store.writing import complete_begun, writing
from tbps.preprocess.image import open_image
from tbps.storage import make_folder, writing_to

__all__ = ["ForgetReport", "Gallery", "GalleryInfo", "Hit", "IngestReport", "Page", "Query"]

_FileStamp = tuple[int, int, int] | None
_Stamp = tuple[_FileStamp, _FileStamp]


@final
class Gallery:
    """A searchable collection of images on disk, with metadata and the embeddings of one model. Created by `open`.

    Safe for use from several threads and processes at once: writers take turns, one commit at a time; readers take no lock.
    patience: how many seconds a writer waits for other writers.
    """

    def __init__(self, path: Path, model: Encoder, patience: float) -> None:
        self.path = path
        self._model = model
        self._patience = patience
        self._opened: _Opened | None = None
        self._replacements = 0
        self._refreshing = threading.Lock()

    @classmethod
    def open(cls, path: str | Path, model: Encoder, create: bool = True, patience: float = PATIENCE) -> "Gallery":
        """Opens the gallery in folder `path`; a new gallery is an empty folder until the first `add`.

        Completes an erasure whose process was killed. Raises MixedModelsError if another model made the gallery; GalleryError if
        the folder is damaged, holds other files, or is missing and `create` is false; StorageError if it cannot be created.
        """
        folder = Path(path)
        complete_begun(folder)
        manifest = read_manifest(folder) if create else recorded(folder)
        gallery = cls(folder, model, patience)
        if manifest is None:
            _check_empty(make_folder(folder))
        else:
            gallery.refreshed()
        return gallery

    def add(  # noqa: PLR0913 - public since 0.1; newer parameters are keyword-only
        self,
        images: str | Path | Iterable[Picture | Named],
        metadata: str | Path | Sequence[Mapping[str, Any]] | None = None,
        on_progress: OnProgress | None = None,
        batch_size: int = 64,
        footage: Footage | None = None,
        *,
        exclude: Sequence[str] = (),
        refresh: bool = False,
    ) -> IngestReport:
        """Indexes a folder (with its `metadata.jsonl` if it has one), an archive, a video, or a list of these and of pictures.

        Files whose content is already in the gallery are skipped. People are detected and cropped in videos, and in photographs if
        `footage` says so. Pictures that cannot be read are named in the report, and the rest is added.

        metadata: replaces the folder's own file, or holds one mapping for each picture of a list. on_progress: called with the
        number of committed pictures and the total; if the process is killed, calling `add` again adds the rest.
        exclude: patterns of files and folders to leave out (see `patterns`). refresh: updates rows whose files were changed or
        moved, or whose metadata were corrected (see `changes`); without it the report only names these files.

        Raises DataError if there is no picture at all, AnnotationError on a malformed metadata file, BusyError if other processes
        keep the gallery locked, StorageError on a full or read-only disk.
        """
        if batch_size < 1:
            raise SettingsError(f"batch_size is {batch_size}; it must be at least 1")
        options = IngestOptions(batch_size, refresh, footage or Footage())
        sources = find_sources(images, metadata, exclude, options.footage.camera)
        return ingest(self.path, self._writing, self._model, sources, options, on_progress)

    def search(self, text: str, k: int = 10, where: str | None = None) -> list[Hit]:
        """The `k` images that fit a description best, best first: the hits of `find` for this text.

        where: a filter on the metadata columns (see `filters`). A description longer than the model's context is split, and
        the embeddings of its parts are averaged; `find` also returns a notice of that. Raises QueryError on a text without a word,
        k < 1, or a filter that is malformed or names an unknown column.
        """
        return list(self.find(_first(k, where, Text.parse({"text": text}))).hits)

    def search_image(self, image: Picture, k: int = 10, where: str | None = None) -> list[Hit]:
        """The `k` images most similar to a picture. Raises as `search`, and ImageError when it cannot be read."""
        return list(self.find(_first(k, where), [image]).hits)

    def search_embedding(self, embedding: Float[np.ndarray, " D"], k: int = 10, where: str | None = None) -> list[Hit]:
        """The `k` images most similar to an embedding of the gallery's model.

        Raises as `search`, and QueryError on an embedding of another size or without direction.
        """
        return list(self.find(_first(k, where), [embedding]).hits)

    def forget(
        self,
        where: str | None = None,
        identity: str | None = None,
        before: str | datetime | None = None,
        ids: Iterable[str] = (),
        dry_run: bool = False,
    ) -> ForgetReport:
        """Erases the images that satisfy all given conditions from disk: rows, thumbnails, old versions, also in snapshots.

        See `forget.forget`. Raises QueryError if no condition is given, or if `where` or `before` cannot be read.
        """
        selection = Selection(where, identity, before, tuple(ids))
        return forget(self.path, selection, dry_run, self._patience)

    def retain(self, dry_run: bool = False) -> ForgetReport | None:
        """Forgets images that are older than the gallery's rules allow (see `retention`); None if there is no rule."""
        return retain(self.path, dry_run, patience=self._patience)

    @read_again
    def find(
        self,
        query: Query,
        pictures: Sequence[Sample] = (),
        within: Sequence[str] | None = None,
        thumbnails: bool = True,
    ) -> Page:
        """Searches for a query; returns one page of hits.

        pictures: pictures, or embeddings of the gallery's model, to search for in addition to the parts of the query.
        within: restrict to these cameras; ids of images from other cameras count as unknown.
        thumbnails: if False, the hits have no thumbnails, and a prepared gallery reads nothing from disk.
        Raises QueryError as `search`, on an unknown id or column, and on a version that is no longer kept; ImageError on a picture
        that cannot be read; ModelError on a calibration that is damaged or belongs to another model.
        """
        version, scope = self._version(within, query.version)
        composed = compose(query, pictures, self._model, embeddings_of(ids_of(query), version, scope))
        calibration = calibration_of(self._model) if composed.plain and not query.rerank else None
        return find(version, scope, query, composed, calibration, thumbnails)

    @read_again
    def image(self, id: str, within: Sequence[str] | None = None) -> Hit:
        """The image with an id, as a hit with score 0. Raises UnknownIdError, also for images outside the cameras `within`."""
        version, scope = self._version(within)
        (hit,) = version.hits(np.array([position_of(id, version, scope)]), np.zeros(1))
        return hit

    @read_again
    def explain(self, query: Query, id: str, within: Sequence[str] | None = None) -> Explanation:
        """Explains a score: the contribution of each word of a query and each region of an image.

        Pictures that were passed to `find` in addition to the query are left out. Regions are those of the thumbnail;
        the score is that of the stored embedding. Raises as `find`, UnknownIdError as `image`, and as `explain.explain`.
        """
        version, scope = self._version(within)
        position = position_of(id, version, scope)
        passing_of(query, version, scope)  # raises on conditions that `find` would refuse
        composed = compose(query, (), self._model, embeddings_of(ids_of(query), version, scope))
        (hit,) = version.hits(np.array([position]), np.zeros(1))
        embedding = version.rows.embeddings[position].astype(np.float64)
        return explain(self._model, composed, query.texts, open_image(hit.thumbnail), embedding)

    @read_again
    def tracklet(self, id: str, within: Sequence[str] | None = None) -> list[Hit]:
        """The images of a tracklet, ordered by time and frame, as hits with score 0; at most a thousand."""
        version, scope = self._version(within)
        positions = members(version, scope, "tracklet", id)
        hits = version.hits(positions, np.zeros(len(positions)))
        return sorted(hits, key=lambda hit: (hit.captured_at or "", str(hit.attributes.get("frame", "")).zfill(12), hit.id))

    @read_again
    def summary(self, within: Sequence[str] | None = None) -> Summary | None:
        """Images, cameras, times, and the columns with their most frequent values; None while the gallery is empty."""
        return None if self._refreshed() is None else summarise(*self._version(within))

    @read_again
    def count(self, within: Sequence[str] | None = None) -> int:
        """Number of images; within: count only the images of these cameras."""
        if within is None or self._refreshed() is None:
            return len(self)
        _, scope = self._version(within)
        return 0 if scope is None else len(scope.positions)

    @read_again
    def prepare(self) -> bool:
        """Reads embeddings and metadata into memory and builds the cells for approximate search above 200,000 images.

        The first search is then as fast as later ones, and no search reads more than thumbnails from disk. Returns whether searches
        are approximate.
        """
        return self._versions().prepare()

    @read_again
    def check(self, texts: Sequence[str], k: int = 10, where: str | None = None) -> RecallReport:
        """Recall of the gallery's searches against exact search, over descriptions. Raises as `search`."""
        return check_recall(self._versions(), self._model, texts, k, where)

    def info(self) -> GalleryInfo:
        """What the gallery holds: images, model, cameras, columns, snapshots, rules, size on disk."""
        return describe(self.path, manifest_of(self._model))

    @read_again
    def present(self, ids: Sequence[str]) -> set[str]:
        """The subset of the ids that exist in the gallery."""
        with reading(self.path):
            opened = self._refreshed()
            return set() if opened is None else opened.table.present(ids)

    @read_again
    def __len__(self) -> int:
        with reading(self.path):
            opened = self._refreshed()
            if opened is None:
                return 0
            return len(opened.table) - (opened.table.count_of(opened.hidden) if opened.hidden else 0)

    @read_again
    def refreshed(self) -> int:
        """Drops everything in memory that another process has replaced or is erasing.

        Returns a counter that increases whenever something was dropped. Every search does this first. Raises as `open`, but does
        not complete an erasure.
        """
        self._refreshed()
        return self._replacements

    def _version(self, within: Sequence[str] | None, number: int | None = None) -> tuple[Version, Scope | None]:
        """Version `number` (None: the newest) and its scope for the cameras `within` (None: all)."""
        version = self._versions().at(number, within)
        return version, None if within is None else version.scope(within)

    def _versions(self) -> Versions:
        opened = self._refreshed()
        if opened is None:
            raise GalleryError(f"gallery {self.path} is empty; add pictures with: tbps index PHOTOS --gallery {self.path}")
        return opened.versions

    def _refreshed(self) -> "_Opened | None":
        """The table that the manifest names, reopened if another process has replaced it; None if there is no table yet.

        Raises StaleVersionError if the table is replaced during this call.
        """
        with self._refreshing:
            stamp = _stamp(self.path)
            if self._opened is not None and self._opened.stamp == stamp:
                return self._opened
            if self._opened is not None:
                self._opened, self._replacements = None, self._replacements + 1
            state = state_of(self.path)
            with reading(self.path, state):
                if (manifest := read_manifest(self.path)) is None:
                    return None
                check_model(self.path, manifest, self._model)
                hidden = erasing(self.path)
                table = Table.open(self.path, manifest.dim, manifest.table)
            if table is None:  # not created yet by the first writer, or the manifest already names another table
                check_newest(self.path, state)
                return None
            self._opened = _Opened(stamp, table, Versions(table, hidden=hidden), hidden)
            return self._opened

    @contextmanager
    def _writing(self) -> Iterator[Table]:
        """Holds the gallery's lock and yields its table; creates the manifest and the table if they do not exist."""
        with writing(self.path, self._patience):
            if (opened := self._refreshed()) is None:
                manifest = read_manifest(self.path)
                if manifest is None:
                    write_manifest(self.path, manifest := manifest_of(self._model))
                Table.begin(self.path, manifest.dim, manifest.table)
                opened = self._refreshed()
            assert opened is not None
            yield opened.table


@dataclass(frozen=True, slots=True)
class _Opened:
    """An open table. stamp: `_stamp` of the gallery when the table was opened; hidden: ids of rows that are being erased."""

    stamp: _Stamp
    table: Table
    versions: Versions
    hidden: frozenset[str]


def _first(k: int, where: str | None, *texts: Text) -> Query:
    """A query for the first `k` hits; `k` may exceed the limit of `Query.k`."""
    if k < 1:
        raise QueryError(f"k is {k}; ask for at least one hit")
    return Query(texts=texts, where=where).model_copy(update={"k": k})


def _check_empty(folder: Path) -> None:
    with writing_to(folder):
        others = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith((LOCK_FILE, f".{MANIFEST_FILE}")))
    if others:
        raise GalleryError(
            f"{folder} is no gallery ({MANIFEST_FILE} is missing) but holds {others[0]!r}; give a new or empty folder"
        )


def _stamp(folder: Path) -> _Stamp:
    """A value that changes when the manifest is replaced, and when an erasure begins or ends."""
    return _file_stamp(folder / MANIFEST_FILE), _file_stamp(folder / ERASURE_FILE)


def _file_stamp(file: Path) -> _FileStamp:
    """Inode, modification time and size of a file; None if it does not exist."""
    try:
        stat = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
