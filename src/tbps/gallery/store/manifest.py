"""The manifest of a gallery: the model that made its embeddings, and the table that is searched.

GALLERY/gallery.json    the manifest, written before anything else; see `layout` for the rest of the folder
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from tbps.config import Settings
from tbps.errors import GalleryError, MixedModelsError, SettingsError
from tbps.gallery.encoder import Encoder
from tbps.preprocess.image import ImageSpec
from tbps.storage import write_text

MANIFEST_FILE = "gallery.json"
"""File in a gallery folder that names the model and the table."""


class Manifest(Settings):
    """The manifest of a gallery or snapshot.

    encoder_name: folder or hub id that the model was opened from; encoder_location: its folder as an absolute path, else the same
    as the name; table: the table that is searched, TABLE.lance beside the manifest; taken: time of the snapshot, None for the
    gallery itself.
    """

    format: Literal["tbps-gallery"] = "tbps-gallery"
    version: Literal[1] = 1
    encoder_name: str
    encoder_location: str
    encoder_fingerprint: str
    dim: int
    image: ImageSpec
    created: str
    table: str = Field(default="images", pattern=r"^images(-\d{1,18})?$")
    taken: str | None = None


def now() -> str:
    """The present time as manifests store it: ISO 8601, UTC, seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def manifest_of(model: Encoder) -> Manifest:
    """The manifest of a new gallery for a model."""
    return Manifest(
        encoder_name=model.name,
        encoder_location=model.name if model.folder is None else str(model.folder),
        encoder_fingerprint=model.fingerprint,
        dim=model.dim,
        image=model.spec,
        created=now(),
    )


def write_manifest(folder: Path, manifest: Manifest, name: str = MANIFEST_FILE) -> None:
    """Writes a manifest atomically. Raises StorageError on a full or read-only disk."""
    write_text(folder / name, manifest.model_dump_json(indent=2) + "\n")


def read_manifest(folder: Path, name: str = MANIFEST_FILE) -> Manifest | None:
    """Reads the manifest of a gallery folder; None if there is none. Raises GalleryError if it is damaged."""
    file = folder / name
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise GalleryError(f"{file} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise GalleryError(f"{file} is damaged ({error}); restore it, or index again into a new folder") from error
    if not isinstance(values, dict):
        raise GalleryError(f"{file} is damaged (no JSON object); restore it, or index again into a new folder")
    try:
        return Manifest.parse(values)
    except SettingsError as error:
        raise GalleryError(f"{file} is damaged or of another version ({error}); restore it, or index again") from error


def recorded(folder: Path) -> Manifest:
    """Reads the manifest of an existing gallery. Raises GalleryError if it is missing or damaged."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise GalleryError(f"there is no gallery at {folder}; make one with: tbps index PHOTOS --gallery {folder} --model MODEL")
    return manifest


def check_model(folder: Path, manifest: Manifest, model: Encoder) -> None:
    """Raises MixedModelsError, naming both models, unless `model` made the embeddings of this gallery."""
    if model.fingerprint != manifest.encoder_fingerprint:
        raise MixedModelsError(
            f"gallery {folder} holds embeddings of model {manifest.encoder_name!r} ({manifest.encoder_fingerprint}), not of "
            f"{model.name!r} ({model.fingerprint}); use that model, or index the pictures again into a new folder"
        )
