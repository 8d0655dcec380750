"""Embeds the images of a gallery with another model, in a second table that replaces the first when it is complete.

GALLERY/reembed.json is the future manifest; its table holds the images that are embedded so far. Until the switch, searches use the
old table. If the process is killed, the same call continues. Images that are added in the meantime are embedded before the switch;
images that are forgotten in the meantime are deleted from both tables.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tbps.config import Settings
from tbps.errors import GalleryError, ImageError, SettingsError
from tbps.gallery.encoder import Encoder, checked_embeddings
from tbps.gallery.store.layout import REEMBED_FILE, manifest_at, next_table, replace_head, table_of
from tbps.gallery.store.lock import PATIENCE
from tbps.gallery.store.manifest import MANIFEST_FILE, manifest_of, read_manifest, recorded
from tbps.gallery.store.table import Table
from tbps.gallery.store.writing import writing
from tbps.gallery.suffixes import VIDEO_SUFFIXES, is_archive
from tbps.preprocess.image import MAX_FILE_BYTES, open_image, to_array
from tbps.storage import file_hash

OnProgress = Callable[[int, int], None]

_COMMIT_ROWS = 256
_Lost = tuple[str, bool]  # source of an image without a readable file, and whether it was part of another file
_ORIGIN = ["id", "root", "source", "attributes", "content_hash"]
_BOX = {"box_x", "box_y", "box_width", "box_height", "quality"}  # columns of every crop (see `tbps.video.Crop`)


class Reembedding(Settings):
    """Settings of a re-embedding.

    thumbnails: embed an image from its thumbnail when its file is gone or changed; restart: discard another model's unfinished run.
    """

    thumbnails: bool = False
    restart: bool = False
    batch_size: int = 64
    patience: float = PATIENCE


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """Result of `reembed`, in numbers of images.

    images: embedded in this run; from_thumbnails: of these, embedded from thumbnails; resumed: embedded by an earlier run.
    """

    images: int
    from_thumbnails: int
    resumed: int
    seconds: float


def reembed(
    folder: Path, model: Encoder, settings: Reembedding | None = None, on_progress: OnProgress | None = None
) -> ReembedReport:
    """Embeds every image of a gallery with another model, from the indexed files, then switches to that model.

    on_progress: called with the number of committed images and the total. Raises GalleryError when files are gone or have changed
    and `thumbnails` is false, or when another model's re-embedding is unfinished; SettingsError when the gallery is of this model
    already.
    """
    started = time.monotonic()
    work = _Run(folder, model, settings or Reembedding(), on_progress or (lambda done, total: None))
    resumed = work.begin()
    while missing := work.missing():
        work.embed(missing)
    return ReembedReport(work.done - resumed, work.from_thumbnails, resumed, time.monotonic() - started)


class _Run:
    """One run of `reembed`."""

    def __init__(self, folder: Path, model: Encoder, settings: Reembedding, on_progress: OnProgress) -> None:
        self._folder, self._model, self._settings, self._progress = folder, model, settings, on_progress
        self._small: set[str] = set()  # embedded from thumbnails
        self.done = self.from_thumbnails = 0

    def begin(self) -> int:
        """Creates the second manifest and table, unless an earlier run did; returns the number of images in the table."""
        manifest = recorded(self._folder)
        if manifest.encoder_fingerprint == self._model.fingerprint:
            raise SettingsError(f"gallery {self._folder} is embedded with {self._model.name!r} already; give another model")
        with writing(self._folder, self._settings.patience):
            if table_of(self._folder / MANIFEST_FILE) is None:
                raise GalleryError(f"gallery {self._folder} is empty; there is nothing to embed")
            begun = read_manifest(self._folder, REEMBED_FILE)
            if begun is not None and begun.encoder_fingerprint != self._model.fingerprint:
                if not self._settings.restart:
                    raise GalleryError(
                        f"embedding gallery {self._folder} with {begun.encoder_name!r} is unfinished; finish that first, or drop "
                        "it with --restart"
                    )
                begun = None
            if begun is None:
                coming = {"table": next_table(self._folder), "created": manifest.created}
                begun = manifest_of(self._model).model_copy(update=coming)
                replace_head(self._folder / REEMBED_FILE, begun)
            self.done = len(Table.begin(self._folder, begun.dim, begun.table))
        return self.done

    def missing(self) -> list[str]:
        """The ids of images not yet embedded; if there are none, switches models. Raises GalleryError when files are gone."""
        missing: list[str] = []
        gone: list[_Lost] = []
        with writing(self._folder, self._settings.patience):
            table, second = self._tables()
            embedded = {id_ for batch in second.batches(["id"]) for id_ in batch.column("id").to_pylist()}
            for row in (row for batch in table.batches(_ORIGIN) for row in batch.to_pylist()):
                if row["id"] not in embedded:
                    missing.append(row["id"])
                    gone += [_lost(row)] if not self._settings.thumbnails and _gone(row) else []
            if not missing:
                second.tidy()
                replace_head(self._folder / MANIFEST_FILE, manifest_at(self._folder / REEMBED_FILE))
        _check_none(gone)
        return missing

    def embed(self, missing: Sequence[str]) -> None:
        """Embeds and commits the images with the ids `missing`. Raises GalleryError at the end when some could not be read."""
        total = self.done + len(missing)
        self._progress(self.done, total)
        unread: list[_Lost] = []
        for at in range(0, len(missing), _COMMIT_ROWS):
            with writing(self._folder, self._settings.patience):
                rows = self._tables()[0].rows(missing[at : at + _COMMIT_ROWS])
            pictures = [self._pixels(row, unread) for row in rows.to_pylist()]
            read = [place for place, pixels in enumerate(pictures) if pixels is not None]
            if read:
                images = [Image.fromarray(pixels) for pixels in pictures if pixels is not None]
                self._commit(rows.take(read), self._encoded(images))
            self._progress(self.done, total)
        _check_none(unread)

    def _encoded(self, images: Sequence[Image.Image]) -> np.ndarray:
        embeddings = self._model.encode_images(images, batch_size=self._settings.batch_size)
        return checked_embeddings(embeddings, (len(images), self._model.dim), self._model.name)

    def _commit(self, rows: Any, embeddings: np.ndarray) -> None:
        with writing(self._folder, self._settings.patience):
            table, second = self._tables()
            ids = rows.column("id").to_pylist()
            present = table.present(ids) - second.present(ids)  # leaves out images that were forgotten in the meantime
            kept = [place for place, id_ in enumerate(ids) if id_ in present]
            if kept:
                second.add_columns(table.extras())
                second.append_embedded(rows.take(kept), embeddings[kept], self._model.fingerprint)
            self.done += len(kept)
            self.from_thumbnails += len(self._small & present)

    def _pixels(self, row: dict[str, Any], unread: list[_Lost]) -> np.ndarray | None:
        """The encoder's input, from the file when its bytes are unchanged, else from the thumbnail when that is allowed."""
        content = None if _gone(row) else _place(row).read_bytes()
        if content is None or hashlib.sha256(content).hexdigest() != row["content_hash"]:
            content = row["thumbnail"] if self._settings.thumbnails else None
            self._small.add(row["id"])
        try:
            if content is not None:
                return to_array(open_image(content), self._model.spec)
        except ImageError:
            self._small.discard(row["id"])
        unread.append(_lost(row))
        return None

    def _tables(self) -> tuple[Table, Table]:
        table, second = table_of(self._folder / MANIFEST_FILE), table_of(self._folder / REEMBED_FILE)
        if table is None or second is None:
            raise GalleryError(f"gallery {self._folder} lost a table during re-embedding; run again")
        return table, second


def _place(row: dict[str, Any]) -> Path:
    return Path(row["root"], row["source"])


def _gone(row: dict[str, Any]) -> bool:
    """Whether an image has no file to read: it never had one of its own, or the file is missing or too large."""
    try:
        return not row["root"] or _inside(row) or not _place(row).is_file() or _place(row).stat().st_size > MAX_FILE_BYTES
    except OSError:
        return True


def _inside(row: dict[str, Any]) -> bool:
    """Whether an image is a crop of a scene or video, or a member of an archive, and so has no file of its own."""
    source = Path(row["source"])
    if source.suffix.lower() in VIDEO_SUFFIXES or any(is_archive(part) for part in source.parts[:-1]):
        return True
    if '"box_width"' not in row["attributes"] or not json.loads(row["attributes"]).keys() >= _BOX:
        return False
    place = _place(row)  # the metadata of a whole picture may have these columns too
    return not (place.is_file() and file_hash(place) == row["content_hash"])


def _lost(row: dict[str, Any]) -> _Lost:
    return row["source"], _inside(row)


def _check_none(lost: Sequence[_Lost]) -> None:
    small = "embed them from their thumbnails (--thumbnails), which are small, so that searches find them less reliably"
    inside = [source for source, within in lost if within]
    if len(inside) == len(lost) > 0:
        raise GalleryError(
            f"{len(inside):,} images were cut out of scenes or videos, or lay in archives, such as {inside[0]}, and have no file "
            f"of their own to be embedded from; forget these images, or {small}"
        )
    if lost:
        own = next(source for source, within in lost if not within)
        more = f", and {len(inside):,} were cut out of scenes or videos, or lay in archives, such as {inside[0]}" if inside else ""
        raise GalleryError(
            f"{len(lost) - len(inside):,} images can no longer be read where they were indexed, or have changed, such as {own}"
            f"{more}; bring the files back, index the folder where they are now with --refresh, forget these images, or {small}"
        )
