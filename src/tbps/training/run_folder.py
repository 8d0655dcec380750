"""The settings that a run folder holds: a run goes on under those that it was begun with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tbps.config import Settings
from tbps.errors import CheckpointError, SettingsError
from tbps.storage import make_folder, write_text
from tbps.training.settings import TrainSettings


def holds(folder: Path, settings: TrainSettings) -> bool:
    """Whether the run in `folder` was begun with these settings, as far as the program knew them that began it."""
    stored = _stored(folder)
    return stored is not None and not _difference(stored, settings.as_earlier(stored))


def unknown_then(folder: Path, settings: TrainSettings) -> list[str]:
    """ "key=value" of settings that differ from `settings` because the program that began the run did not know them."""
    begun = as_begun(folder, settings)
    keys = [key for key in type(settings).dotted() if not isinstance(_value(begun, key), Settings)]
    return [f"{key}={_value(begun, key)}" for key in keys if _value(begun, key) != _value(settings, key)]


def as_begun(folder: Path, settings: TrainSettings) -> TrainSettings:
    """The settings, or where `folder` holds a run of an older program, with that program's values of what it did not know."""
    stored = _stored(folder)
    return settings if stored is None else settings.as_earlier(stored)


def claim(folder: Path, settings: TrainSettings) -> None:
    """Writes settings.json. Raises SettingsError where the folder holds a run with other settings, and names the first that
    differs.
    """
    file, stored = make_folder(folder) / "settings.json", _stored(folder)
    if stored is not None and (differing := _difference(stored, settings)):
        raise SettingsError(
            f"{folder} holds a run with other settings ({differing}); give another --out, or the settings in {file}"
        )
    write_text(file, settings.model_dump_json(indent=2) + "\n")


def _stored(folder: Path) -> dict[str, Any] | None:
    """What settings.json says, None where there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{folder / 'settings.json'} is damaged ({error}); restore it, or give another --out") from error
    return found


def _difference(stored: Mapping[str, Any], settings: TrainSettings) -> str:
    """The first setting in which a run differs from what is asked, with both values; empty where none does."""
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
