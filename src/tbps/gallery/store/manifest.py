"""The small file that says what a gallery folder is, which model made its embeddings and which table answers.

GALLERY/gallery.json    this manifest, written before anything else; `layout` has the rest of the folder
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
    """`encoder_name` is what the model was opened by, `encoder_location` the same as an absolute path where it is a folder.

    table: the one that answers, TABLE.lance beside the manifest; taken: when a snapshot was, None for the gallery itself.
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
    """The time as manifests hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def manifest_of(model: Encoder) -> Manifest:
    """The manifest of a gallery that `model` begins."""
    folder = Path(model.name)
    return Manifest(
        encoder_name=model.name,
        encoder_location=str(folder.resolve()) if folder.is_dir() else model.name,
        encoder_fingerprint=model.fingerprint,
        dim=model.dim,
        image=model.spec,
        created=now(),
    )


def write_manifest(folder: Path, manifest: Manifest, name: str = MANIFEST_FILE) -> None:
    """Writes it atomically. Raises StorageError on a full or read-only disk."""
    write_text(folder / name, manifest.model_dump_json(indent=2) + "\n")


def read_manifest(folder: Path, name: str = MANIFEST_FILE) -> Manifest | None:
    """The manifest of a gallery folder, None where there is none. Raises GalleryError when it is damaged."""
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
