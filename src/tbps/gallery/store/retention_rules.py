"""Retention rules: how long the images of each camera are kept. Stored in GALLERY/retention.json."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tbps.config import Settings
from tbps.errors import GalleryError, SettingsError
from tbps.gallery.store.filters import Among, Compare, Condition, Either, Every, Is, Not
from tbps.gallery.store.layout import RETENTION_FILE

Days = Annotated[int, Field(ge=1, le=36_500)]


class Retention(Settings):
    """How many days images are kept.

    cameras: days by camera; default_days: days for all other images, also those without a camera; None keeps them for ever.
    """

    default_days: Days | None = None
    cameras: Mapping[str, Days] = {}

    def condition(self, today: datetime) -> Condition | None:
        """The condition for images that are past their retention period at `today` (UTC without zone); None without a rule."""
        by_days: dict[int, list[str]] = {}
        for camera, days in self.cameras.items():
            by_days.setdefault(days, []).append(camera)
        parts: list[Condition] = [Every((Among("camera", tuple(names)), _older(days, today))) for days, names in by_days.items()]
        if self.default_days is not None:
            others = Either((Is("camera", None), Not(Among("camera", tuple(self.cameras)))))
            parts.append(Every((others, _older(self.default_days, today))))
        return Either(tuple(parts)) if parts else None


def read_retention(folder: Path) -> Retention:
    """Reads the rules of a gallery. Raises GalleryError if they are damaged."""
    file = folder / RETENTION_FILE
    try:
        return Retention.parse(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Retention()
    except (OSError, ValueError, TypeError, SettingsError) as error:
        raise GalleryError(f"{file} is damaged ({error}); remove it and give the rules again") from error


def _older(days: int, today: datetime) -> Condition:
    return Compare("captured_at", "<", today - timedelta(days=days))
