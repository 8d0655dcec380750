"""The gallery: a folder of embedded pictures that is filled once and asked often.

gallery = Gallery.open("my-gallery", model)
gallery.add("photos/")
hits = gallery.search("a woman in a red coat", k=10, where="camera = 'lobby'")
"""

import fcntl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float
from PIL import Image

from tbps.errors import CaptionError, GalleryError, QueryError, SettingsError
from tbps.preprocess.caption import clean_caption
from tbps.preprocess.image import open_image, upright_rgb
from tbps.search.check import RecallReport, check_recall
from tbps.search.encoder import Encoder
from tbps.search.engine import Engine
from tbps.search.find import find
from tbps.search.hits import Hit, Page
from tbps.search.ingest import IngestReport, OnProgress, ingest
from tbps.search.manifest import MANIFEST_FILE, check_model, manifest_of, read_manifest, recorded, write_manifest
from tbps.search.query import Query
from tbps.search.sources import Picture, find_sources
from tbps.search.table import Table
from tbps.storage import make_folder, writing_to

__all__ = ["Gallery", "GalleryInfo", "Hit", "IngestReport", "Page", "Query"]

_LOCK_FILE = ".lock"


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """columns: what a filter may name, with the kind of each; bytes: on disk, old versions included."""

    path: Path
    images: int
    model: str
    fingerprint: str
    dim: int
    columns: Mapping[str, str]
    bytes: int


@final
class Gallery:
    """Embedded pictures of one model with their metadata, on disk. Made by `open`.

    Searching is safe from several threads and processes at once, also while one process adds; a second that adds is refused.
    """

    def __init__(self, path: Path, model: Encoder, table: Table | None) -> None:
        self.path = path
        self._model = model
        self._table = table
        self._engine = None if table is None else Engine(table)

    @classmethod
    def open(cls, path: str | Path, model: Encoder, create: bool = True) -> "Gallery":
        """The gallery in folder `path`; nothing but the folder is made before the first `add`.

        Raises MixedModelsError when another model made it; GalleryError when it is damaged, holds other files, or is missing
        and `create` is false; StorageError when the folder cannot be made.
        """
        folder = Path(path)
        manifest = read_manifest(folder) if create else recorded(folder)
        if manifest is None:
            _check_empty(make_folder(folder))
            return cls(folder, model, None)
        check_model(folder, manifest, model)
        return cls(folder, model, Table.open(folder, manifest.dim))

    def add(
        self,
        images: str | Path | Iterable[Picture],
        metadata: str | Path | Sequence[Mapping[str, Any]] | None = None,
        on_progress: OnProgress | None = None,
        batch_size: int = 64,
    ) -> IngestReport:
        """Indexes a folder (with its `metadata.jsonl` if it has one) or a list of files and pictures; known content is skipped.

        Pictures that cannot be read are named in the report and the rest is added. `metadata` replaces the folder's own file,
        or holds one mapping for each picture of a list. `on_progress` counts pictures whose fate is on disk: killed at any
        moment, a gallery holds every one of them, and adding the same again completes it.

        Raises DataError when there is no picture at all, AnnotationError on a malformed metadata file, GalleryError while
        another process adds, StorageError on a full or read-only disk.
        """
        if batch_size < 1:
            raise SettingsError(f"batch_size is {batch_size}; at least one picture is encoded at a time")
        sources = find_sources(images, metadata)
        with _lock(make_folder(self.path)):
            table = self._begun()
            return ingest(table, self._model, sources, batch_size, on_progress)

    def search(self, text: str, k: int = 10, where: str | None = None) -> list[Hit]:
        """The `k` images that fit a description best, best first; `where` is an SQL condition on the metadata columns.

        Raises QueryError when no word is left of the text, k < 1, or the filter is malformed or names an unknown column.
        """
        try:
            clean_caption(text)
        except CaptionError as error:
            raise QueryError("the query has no word; describe the person, for example: a woman in a red coat") from error
        return self.search_embedding(self._model.encode_texts([text])[0], k, where)

    def search_image(self, image: Picture, k: int = 10, where: str | None = None) -> list[Hit]:
        """The `k` images most similar to a picture. Raises as `search`, and ImageError when it cannot be read."""
        picture = upright_rgb(image) if isinstance(image, Image.Image) else open_image(image)
        return self.search_embedding(self._model.encode_images([picture])[0], k, where)

    def search_embedding(self, embedding: Float[np.ndarray, " D"], k: int = 10, where: str | None = None) -> list[Hit]:
        """The `k` images most similar to a vector of the gallery's model. Raises as `search`."""
        return self._searching().search(embedding, k, where)

    def find(self, query: Query, pictures: Sequence[Picture] = ()) -> Page:
        """The page of hits that a composed query asks for; `pictures` are sought together with what it names.

        Raises QueryError as `search`, on an id or column that is not there, and on a version that is gone; ImageError on a picture
        that cannot be read; ModelError on a calibration that is damaged or of another model.
        """
        return find(self._searching(), self._model, query, pictures)

    def prepare(self) -> bool:
        """Reads the embeddings into memory and, above 200,000 images, builds what approximate searches need: a first search is
        then as quick as the others. Whether searches are approximate.
        """
        return self._searching().prepare()

    def check(self, texts: Sequence[str], k: int = 10, where: str | None = None) -> RecallReport:
        """How much of the exact answers the gallery's own searches find, over descriptions. Raises as `search`."""
        return check_recall(self._searching(), self._model, texts, k, where)

    def info(self) -> GalleryInfo:
        """What the gallery holds."""
        table = self._refreshed()
        files = [file for file in self.path.rglob("*") if file.is_file()]
        return GalleryInfo(
            path=self.path,
            images=0 if table is None else len(table),
            model=self._model.name,
            fingerprint=self._model.fingerprint,
            dim=self._model.dim,
            columns={} if table is None else table.kinds(),
            bytes=sum(file.stat().st_size for file in files),
        )

    def __len__(self) -> int:
        table = self._refreshed()
        return 0 if table is None else len(table)

    def _searching(self) -> Engine:
        if self._refreshed() is None or self._engine is None:
            raise GalleryError(f"gallery {self.path} is empty; add pictures with: tbps index PHOTOS --gallery {self.path}")
        return self._engine

    def _refreshed(self) -> Table | None:
        """The table, which another process may have made since `open`."""
        if self._table is None and (manifest := read_manifest(self.path)) is not None:
            check_model(self.path, manifest, self._model)
            self._use(Table.open(self.path, manifest.dim))
        return self._table

    def _begun(self) -> Table:
        """Manifest and table, made if they are not there; under the lock."""
        table = self._refreshed()
        if table is None:
            if read_manifest(self.path) is None:
                write_manifest(self.path, manifest_of(self._model))
            table = Table.create(self.path, self._model.dim)
            self._use(table)
        return table

    def _use(self, table: Table | None) -> None:
        self._table = table
        self._engine = None if table is None else Engine(table)


def _check_empty(folder: Path) -> None:
    with writing_to(folder):
        others = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith((_LOCK_FILE, f".{MANIFEST_FILE}")))
    if others:
        raise GalleryError(
            f"{folder} is no gallery ({MANIFEST_FILE} is missing) but holds {others[0]!r}; give a new or empty folder"
        )


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Held by the one process that adds; the system releases it when that process ends, however it ends."""
    with writing_to(folder), (folder / _LOCK_FILE).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise GalleryError(f"another process is adding to gallery {folder}; run again when it is done") from error
        yield
