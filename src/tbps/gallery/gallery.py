"""The gallery: a folder of embedded pictures that is filled once and asked often.

gallery = Gallery.open("my-gallery", model)
gallery.add("photos/")
hits = gallery.search("a woman in a red coat", k=10, where="camera = 'lobby'")
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
from jaxtyping import Float
from PIL import Image

from tbps.errors import GalleryError, SettingsError
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
from tbps.gallery.search.check import RecallReport, check_recall
from tbps.gallery.search.compose import compose, named
from tbps.gallery.search.engine import Engine
from tbps.gallery.search.explain import Explanation, explain
from tbps.gallery.search.find import check, find, known, position_of
from tbps.gallery.search.page import Page
from tbps.gallery.search.query import Query, Text
from tbps.gallery.search.summary import Summary, members, summarise
from tbps.gallery.store.erasure import erasing
from tbps.gallery.store.hit import Hit
from tbps.gallery.store.layout import ERASURE_FILE
from tbps.gallery.store.lock import LOCK_FILE, PATIENCE
from tbps.gallery.store.manifest import MANIFEST_FILE, check_model, manifest_of, read_manifest, recorded, write_manifest
from tbps.gallery.store.scope import Scope
from tbps.gallery.store.table import Table
from tbps.gallery.store.version import Snapshot
from tbps.gallery.store.writing import complete_begun, writing
from tbps.preprocess.image import open_image, upright_rgb
from tbps.storage import make_folder, writing_to

__all__ = ["ForgetReport", "Gallery", "GalleryInfo", "Hit", "IngestReport", "Page", "Query"]

_T = TypeVar("_T")
_Facts = tuple[int, int, int] | None
_Stamp = tuple[_Facts, _Facts]
_State = tuple[_Stamp, Table, Engine, frozenset[str]]  # the last: ids of rows that are being erased


@final
class Gallery:
    """Embedded pictures of one model with their metadata, on disk. Made by `open`.

    Searching and adding are safe from several threads and processes at once: writers take turns, one commit each.
    `patience`: how many seconds a writer waits for the others.
    """

    def __init__(self, path: Path, model: Encoder, patience: float) -> None:
        self.path = path
        self._model = model
        self._patience = patience
        self._state: _State | None = None
        self._replacements = 0
        self._refreshing = threading.Lock()

    @classmethod
    def open(cls, path: str | Path, model: Encoder, create: bool = True, patience: float = PATIENCE) -> "Gallery":
        """The gallery in folder `path`; nothing but the folder is made before the first `add`.

        Completes an erasure whose process was killed. Raises MixedModelsError when another model made the gallery; GalleryError
        when it is damaged, holds other files, or is missing and `create` is false; StorageError when the folder cannot be made.
        """
        folder = Path(path)
        complete_begun(folder)
        manifest = read_manifest(folder) if create else recorded(folder)
        gallery = cls(folder, model, patience)
        if manifest is None:
            _check_empty(make_folder(folder))
        else:
            gallery._refreshed()
        return gallery

    def add(  # noqa: PLR0913 - public since 0.1; what is new is by keyword
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
        """Indexes a folder (with its `metadata.jsonl` if it has one), an archive, a video or a list of these and of pictures.

        Known content is skipped. People in videos, and in photographs if `footage` says so, are found and cut out.

        Pictures that cannot be read are named in the report and the rest is added. `metadata` replaces the folder's own file,
        or holds one mapping for each picture of a list. `on_progress` counts pictures whose fate is on disk: killed at any
        moment, a gallery holds every one of them, and adding the same again completes it.

        exclude: patterns of files and folders that are left out (see `patterns`). The report names files that differ from what was
        indexed: changed, moved, corrected, gone; `refresh` takes that over (see `changes`), without it nothing of it is.

        Raises DataError when there is no picture at all, AnnotationError on a malformed metadata file, BusyError when others
        keep the gallery locked, StorageError on a full or read-only disk.
        """
        if batch_size < 1:
            raise SettingsError(f"batch_size is {batch_size}; at least one picture is encoded at a time")
        options = IngestOptions(batch_size, refresh, footage or Footage())
        sources = find_sources(images, metadata, exclude, options.footage.camera)
        return ingest(self.path, self._writing, self._model, sources, options, on_progress)

    def search(self, text: str, k: int = 10, where: str | None = None) -> list[Hit]:
        """The `k` images that fit a description best, best first; `where` is a filter on the metadata columns (see `filters`).

        A description that is longer than the model reads at once is averaged over its parts, as by `find`, which also says so.
        Raises QueryError when no word is left of the text, k < 1, or the filter is malformed or names an unknown column.
        """
        vector = compose(Query(texts=(Text.parse({"text": text}),)), (), self._model, {}).vector
        return self.search_embedding(vector.astype(np.float32), k, where)

    def search_image(self, image: Picture, k: int = 10, where: str | None = None) -> list[Hit]:
        """The `k` images most similar to a picture. Raises as `search`, and ImageError when it cannot be read."""
        picture = upright_rgb(image) if isinstance(image, Image.Image) else open_image(image)
        return self.search_embedding(self._model.encode_images([picture])[0], k, where)

    def search_embedding(self, embedding: Float[np.ndarray, " D"], k: int = 10, where: str | None = None) -> list[Hit]:
        """The `k` images most similar to a vector of the gallery's model. Raises as `search`."""
        return self._ask(lambda engine: engine.search(embedding, k, where))

    def forget(
        self,
        where: str | None = None,
        identity: str | None = None,
        before: str | datetime | None = None,
        ids: Iterable[str] = (),
        dry_run: bool = False,
    ) -> ForgetReport:
        """Erases from disk every image that passes all of what is given: rows, thumbnails, old versions, and in snapshots too.

        See `forget.forget`. Raises QueryError when nothing is given or the condition cannot be read.
        """
        selection = Selection(where, identity, before, tuple(ids))
        return forget(self.path, selection, dry_run, self._patience)

    def retain(self, dry_run: bool = False) -> ForgetReport | None:
        """Forgets what is older than the gallery's rules allow (see `retention`); None where there is no rule."""
        return retain(self.path, dry_run, patience=self._patience)

    def find(
        self,
        query: Query,
        pictures: Sequence[Picture] = (),
        within: Sequence[str] | None = None,
        thumbnails: bool = True,
    ) -> Page:
        """The page of hits that a composed query asks for; `pictures` are sought together with what it names.

        within: cameras beyond which there is nothing for who asks, not even the ids that a query may name. thumbnails: False
        leaves those of the hits empty, for who shows them later by `image`: a prepared gallery then reads nothing from disk.
        Raises QueryError as `search`, on an id or column that is not there, and on a version that is gone; ImageError on a picture
        that cannot be read; ModelError on a calibration that is damaged or of another model.
        """
        return self._ask(lambda engine: find(engine, self._model, query, pictures, within, thumbnails))

    def image(self, name: str, within: Sequence[str] | None = None) -> Hit:
        """The image with an id, as a hit of no query: score 0. Raises UnknownIdError, also for one beyond the cameras `within`."""

        def look(snapshot: Snapshot, scope: Scope | None) -> Hit:
            (hit,) = snapshot.hits(np.array([position_of(snapshot, scope, name)]), np.zeros(1))
            return hit

        return self._look(look, within)

    def explain(self, query: Query, name: str, within: Sequence[str] | None = None) -> Explanation:
        """What words and regions carried of the score of an image for a query; pictures that came beside the query are left out.

        It looks at the image's thumbnail, while the score is that of its stored embedding. Raises as `find`, UnknownIdError as
        `image`, and as `explain.explain`.
        """

        def look(snapshot: Snapshot, scope: Scope | None) -> Explanation:
            position = position_of(snapshot, scope, name)
            check(query, snapshot, scope)
            direction = compose(query, (), self._model, known(snapshot, scope, named(query)))
            (hit,) = snapshot.hits(np.array([position]), np.zeros(1))
            embedding = snapshot.rows.embeddings[position].astype(np.float64)
            return explain(self._model, direction, query.texts, open_image(hit.thumbnail), embedding)

        return self._look(look, within)

    def tracklet(self, name: str, within: Sequence[str] | None = None) -> list[Hit]:
        """The images of a tracklet in the order of their times and frames, as hits of no query, at most a thousand."""

        def look(snapshot: Snapshot, scope: Scope | None) -> list[Hit]:
            positions = members(snapshot, scope, "tracklet", name)
            hits = snapshot.hits(positions, np.zeros(len(positions)))
            return sorted(hits, key=lambda hit: (hit.captured_at or "", str(hit.attributes.get("frame", "")).zfill(12), hit.id))

        return self._look(look, within)

    def summary(self, within: Sequence[str] | None = None) -> Summary | None:
        """What there is to search: images, cameras, times, and the columns with their most frequent values; None while empty."""
        return None if self._refreshed() is None else self._look(summarise, within)

    def count(self, within: Sequence[str] | None = None) -> int:
        """How many images there are, of some cameras or of all."""
        if self._refreshed() is None:
            return 0
        return len(self) if within is None else self._look(lambda _, scope: 0 if scope is None else len(scope.positions), within)

    def prepare(self) -> bool:
        """Reads embeddings and metadata into memory and, above 200,000 images, builds what approximate searches need: a first
        search is then as quick as the others, and all of them read at most thumbnails. Whether searches are approximate.
        """
        return self._ask(lambda engine: engine.prepare())

    def check(self, texts: Sequence[str], k: int = 10, where: str | None = None) -> RecallReport:
        """How much of the exact answers the gallery's own searches find, over descriptions. Raises as `search`."""
        return self._ask(lambda engine: check_recall(engine, self._model, texts, k, where))

    def info(self) -> GalleryInfo:
        """What the gallery holds."""
        return describe(self.path, manifest_of(self._model))

    def present(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that the gallery holds an image of."""
        state = self._refreshed()
        return set() if state is None else state[1].present(ids)

    def __len__(self) -> int:
        while (state := self._refreshed()) is not None:
            _, table, _, hidden = state
            try:
                return len(table) - (table.count_of(hidden) if hidden else 0)
            except GalleryError:  # its files were removed while it was read
                if self._refreshed() is state:
                    raise
        return 0

    def refreshed(self) -> int:
        """Lets go of everything in memory that another process has replaced or erases; a number that grows whenever there was any.

        Every question does the same first. Raises as `open`, but completes no erasure.
        """
        self._refreshed()
        return self._replacements

    def _ask(self, question: Callable[[Engine], _T]) -> _T:
        """The answer of the table that answers now; asked again as long as another took its place meanwhile."""
        engine = self._engine()
        while True:
            try:
                return question(engine)
            except GalleryError:
                if (newer := self._engine()) is engine:
                    raise
                engine = newer

    def _look(self, look: Callable[[Snapshot, Scope | None], _T], within: Sequence[str] | None) -> _T:
        """What is found in the newest version, within some cameras."""

        def look_at(snapshot: Snapshot) -> _T:
            return look(snapshot, None if within is None else snapshot.scope(within))

        return self._ask(lambda engine: engine.on_newest(look_at))

    def _engine(self) -> Engine:
        state = self._refreshed()
        if state is None:
            raise GalleryError(f"gallery {self.path} is empty; add pictures with: tbps index PHOTOS --gallery {self.path}")
        return state[2]

    def _refreshed(self) -> _State | None:
        """The table that the manifest names now, which another process may have made, replaced or begun to erase from since."""
        with self._refreshing:
            while self._state is None or self._state[0] != _stamp(self.path):
                if self._state is not None:
                    self._state, self._replacements = None, self._replacements + 1
                stamp, manifest = _stamp(self.path), read_manifest(self.path)
                if manifest is None:
                    return None
                check_model(self.path, manifest, self._model)
                hidden = erasing(self.path)
                try:
                    table = Table.open(self.path, manifest.dim, manifest.table)
                except GalleryError:
                    if _stamp(self.path) == stamp:
                        raise
                    continue
                if table is not None:
                    self._state = stamp, table, Engine(table, hidden=hidden), hidden
                elif _stamp(self.path) == stamp:  # it was not made yet
                    return None
            return self._state

    @contextmanager
    def _writing(self) -> Iterator[Table]:
        """The gallery's lock and its table; manifest and table are made if they are not there."""
        with writing(self.path, self._patience):
            if (state := self._refreshed()) is None:
                manifest = read_manifest(self.path)
                if manifest is None:
                    write_manifest(self.path, manifest := manifest_of(self._model))
                Table.begin(self.path, manifest.dim, manifest.table)
                state = self._refreshed()
            assert state is not None
            yield state[1]


def _check_empty(folder: Path) -> None:
    with writing_to(folder):
        others = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith((LOCK_FILE, f".{MANIFEST_FILE}")))
    if others:
        raise GalleryError(
            f"{folder} is no gallery ({MANIFEST_FILE} is missing) but holds {others[0]!r}; give a new or empty folder"
        )


def _stamp(folder: Path) -> _Stamp:
    """Changes whenever the manifest is replaced, and when an erasure begins or ends."""
    return _facts(folder / MANIFEST_FILE), _facts(folder / ERASURE_FILE)


def _facts(file: Path) -> _Facts:
    """Of a file, None where there is none."""
    try:
        facts = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
