"""Opening the model that a command needs."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tbps.model import PersonModel, TextReader


def best_device() -> str:
    """Name of the device to compute on: cuda if available, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def open_model(model: str | None, gallery: Path) -> "PersonModel":
    """Open the given model, by default the one that made the gallery.

    Raises SettingsError if no model is given and there is no gallery, GalleryError if the gallery's model has moved.
    """
    place = model if model is not None else _remembered(gallery)
    from tbps.model import load

    return load(place, best_device())


def open_for_search(model: str | None, gallery: Path) -> "PersonModel | TextReader":
    """Open a model to search a gallery with: without torch if its folder holds a text tower with the gallery's fingerprint."""
    from tbps.gallery import recorded
    from tbps.model import TextReader

    manifest = recorded(gallery)
    place = Path(model if model is not None else _remembered(gallery))
    reader = TextReader.open(place) if place.is_dir() else None
    return reader if reader is not None and reader.fingerprint == manifest.encoder_fingerprint else open_model(model, gallery)


def _remembered(gallery: Path) -> str:
    """Folder or id of the model that made a gallery."""
    from tbps.errors import GalleryError, SettingsError
    from tbps.gallery import read_manifest

    manifest = read_manifest(gallery)
    if manifest is None:
        raise SettingsError(
            "no model: give --model FOLDER_OR_ID or set TBPS_MODEL; for photographs for example a folder or the id "
            "openai/clip-vit-base-patch16, for drawn mannequins models/mannequin-tiny"
        )
    for place in (manifest.encoder_location, manifest.encoder_name):
        if Path(place).is_dir():
            return place
    if Path(manifest.encoder_location).is_absolute():
        raise GalleryError(
            f"gallery {gallery} was made by the model in {manifest.encoder_location}, which is no longer there; "
            "say where it is with --model"
        )
    return manifest.encoder_location
