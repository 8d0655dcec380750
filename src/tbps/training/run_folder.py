"""Settings files: settings.json of a run folder, which a resumed run must match, and files given by the user."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tbps.config import Settings
from tbps.errors import CheckpointError, SettingsError
from tbps.storage import make_folder, write_text
from tbps.training.settings import TrainSettings


def holds(folder: Path, settings: TrainSettings) -> bool:
    """Whether the run in `folder` was started with these settings, ignoring settings that its version did not have."""
    stored = _stored(folder)
    return stored is not None and not _difference(stored, settings.as_earlier(stored))


def unknown_then(folder: Path, settings: TrainSettings) -> list[str]:
    """List "key=value" of settings that differ in the run because the version that started it did not have them."""
    begun = as_begun(folder, settings)
    keys = [key for key in type(settings).dotted() if not isinstance(_value(begun, key), Settings)]
    return [f"{key}={_value(begun, key)}" for key in keys if _value(begun, key) != _value(settings, key)]


def as_begun(folder: Path, settings: TrainSettings) -> TrainSettings:
    """Return the settings; for a run in `folder` of an older version, settings unknown to it get the values of its behaviour."""
    stored = _stored(folder)
    return settings if stored is None else settings.as_earlier(stored)


def claim(folder: Path, settings: TrainSettings) -> None:
    """Write settings.json. Raises SettingsError that names the first differing setting if the folder holds another run."""
    file, stored = make_folder(folder) / "settings.json", _stored(folder)
    if stored is not None and (differing := _difference(stored, settings)):
        raise SettingsError(
            f"{folder} holds a run with other settings ({differing}); give another --out, or the settings in {file}"
        )
    write_text(file, settings.model_dump_json(indent=2) + "\n")


def read_settings(file: Path) -> TrainSettings:
    """Read the settings.json of a run, of this version or an older one.

    Raises SettingsError for a file that is missing or is not a JSON object, and for an unknown or invalid setting.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{file} cannot be read as settings ({error}); give the settings.json of a run") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{file} holds no settings; give the settings.json of a run")
    try:
        return TrainSettings.parse_stored(content)
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from error


def _stored(folder: Path) -> dict[str, Any] | None:
    """Read settings.json; None if the file does not exist. Raises CheckpointError for a damaged one."""
    try:
        found: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{folder / 'settings.json'} is damaged ({error}); restore it, or give another --out") from error
    return found


def _difference(stored: Mapping[str, Any], settings: TrainSettings) -> str:
    """Describe the first setting in which a stored run differs, with both values; empty if none does."""
    begun = TrainSettings.parse_stored(stored)
    for key in type(settings).dotted():
        was, asked = (_value(one, key) for one in (begun, settings))
        if was != asked and not isinstance(asked, Settings):
            return f"{key} is {was!r} there and {asked!r} here"
    return "" if begun == settings else "their groups differ"


def _value(settings: Settings, key: str) -> Any:
    found: Any = settings
    for part in key.split("."):
        found = None if found is None else getattr(found, part)
    return found
