"""How long images are kept, by camera; what is older is forgotten (see `forget`), from snapshots too.

GALLERY/retention.json holds the rules. They belong to the gallery: restoring a snapshot leaves them as they are.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tbps.config import Settings
from tbps.errors import GalleryError, SettingsError
from tbps.search.filters import Among, Compare, Condition, Either, Every, Is, Not
from tbps.search.forget import ForgetReport, forget
from tbps.search.layout import RETENTION_FILE
from tbps.search.lock import PATIENCE
from tbps.search.manifest import recorded
from tbps.search.numbers import canonical_name
from tbps.search.writing import writing
from tbps.storage import write_text

Days = Annotated[int, Field(ge=1, le=36_500)]


class Retention(Settings):
    """default_days: of images whose camera has no rule of its own, or that have no camera; None keeps them."""

    default_days: Days | None = None
    cameras: Mapping[str, Days] = {}

    def condition(self, today: datetime) -> Condition | None:
        """The condition of what is too old at a time (UTC without zone); None without a rule."""
        by_days: dict[int, list[str]] = {}
        for camera, days in self.cameras.items():
            by_days.setdefault(days, []).append(camera)
        parts: list[Condition] = [Every((Among("camera", tuple(names)), _older(days, today))) for days, names in by_days.items()]
        if self.default_days is not None:
            others = Either((Is("camera", None), Not(Among("camera", tuple(self.cameras)))))
            parts.append(Every((others, _older(self.default_days, today))))
        return Either(tuple(parts)) if parts else None


def read_retention(folder: Path) -> Retention:
    """The rules of a gallery. Raises GalleryError where they are damaged."""
    file = folder / RETENTION_FILE
    try:
        return Retention.parse(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Retention()
    except (OSError, ValueError, TypeError, SettingsError) as error:
        raise GalleryError(f"{file} is damaged ({error}); remove it and give the rules again") from error


def change_retention(folder: Path, changes: Mapping[str | None, int | None], patience: float = PATIENCE) -> Retention:
    """Sets the days of cameras (None: the default), or takes a rule away (days None); the rules from now on, with the cameras'
    names as galleries store them.

    Nothing is forgotten before `retain`. Raises SettingsError on days out of range.
    """
    recorded(folder)
    with writing(folder, patience):
        rules = read_retention(folder)
        days: dict[str | None, int | None] = {None: rules.default_days}
        days.update({canonical_name(camera): number for camera, number in rules.cameras.items()})
        days.update({None if camera is None else canonical_name(camera): number for camera, number in changes.items()})
        cameras = {camera: number for camera, number in days.items() if camera is not None and number is not None}
        changed = Retention.parse({"default_days": days[None], "cameras": cameras})
        write_text(folder / RETENTION_FILE, changed.model_dump_json(indent=2) + "\n")
    return changed


def retain(folder: Path, dry_run: bool = False, today: datetime | None = None, patience: float = PATIENCE) -> ForgetReport | None:
    """Forgets what is older than the gallery's rules allow; None where there is no rule. Images without a time are kept.

    today: UTC, by default the present time. Raises as `forget`.
    """
    recorded(folder)
    condition = read_retention(folder).condition(today or datetime.now(UTC).replace(tzinfo=None))
    return None if condition is None else forget(folder, condition, dry_run, patience)


def _older(days: int, today: datetime) -> Condition:
    return Compare("captured_at", "<", today - timedelta(days=days))
