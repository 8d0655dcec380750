"""The small file that says what a gallery folder is and which model made its embeddings.

GALLERY/gallery.json    this manifest, written before anything else
GALLERY/images.lance/   the table (see `table`)
GALLERY/footage.jsonl   which scenes and videos were looked at (see `footage`)
GALLERY/.lock           held by the one process that adds
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from tbps.config import Settings
from tbps.errors import GalleryError, MixedModelsError, SettingsError
from tbps.preprocess.image import ImageSpec
from tbps.search.encoder import Encoder
from tbps.storage import write_text

MANIFEST_FILE = "gallery.json"


class Manifest(Settings):
    """`encoder_name` is what the model was opened by, `encoder_location` the same as an absolute path where it is a folder."""

    format: Literal["tbps-gallery"] = "tbps-gallery"
    version: Literal[1] = 1
    encoder_name: str
    encoder_location: str
    encoder_fingerprint: str
    dim: int
    image: ImageSpec
    created: str


def manifest_of(model: Encoder) -> Manifest:
    """The manifest of a gallery that `model` begins."""
    folder = Path(model.name)
    return Manifest(
        encoder_name=model.name,
        encoder_location=str(folder.resolve()) if folder.is_dir() else model.name,
        encoder_fingerprint=model.fingerprint,
        dim=model.dim,
        image=model.spec,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes it atomically. Raises StorageError on a full or read-only disk."""
    write_text(folder / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a gallery folder, None where there is none. Raises GalleryError when it is damaged."""
    file = folder / MANIFEST_FILE
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
    """The manifest of a gallery that must be there. Raises GalleryError when it is missing or damaged."""
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
