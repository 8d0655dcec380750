"""Retention: how many days images are kept, by camera. Older ones are forgotten (see `forget`), also from snapshots.

GALLERY/retention.json holds the rules. Restoring a snapshot does not change them.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tbps.gallery.lifecycle.forget import ForgetReport, forget
from tbps.gallery.store.layout import RETENTION_FILE
from tbps.gallery.store.lock import PATIENCE
from tbps.gallery.store.manifest import recorded
from tbps.gallery.store.numbers import canonical_name
from tbps.gallery.store.retention_rules import Retention, read_retention
from tbps.gallery.store.writing import writing
from tbps.storage import write_text


def change_retention(folder: Path, changes: Mapping[str | None, int | None], patience: float = PATIENCE) -> Retention:
    """Changes the rules: camera (None for the default) -> days (None to remove the rule); returns all rules.

    Names of cameras are normalised as galleries store them. Nothing is forgotten before `retain`. Raises SettingsError on days out
    of range.
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
    """Forgets images that are older than the gallery's rules allow; returns None when there is no rule.

    Images without a capture time are kept. today: UTC without zone, by default the present time. Raises as `forget`.
    """
    recorded(folder)
    condition = read_retention(folder).condition(today or datetime.now(UTC).replace(tzinfo=None))
    return None if condition is None else forget(folder, condition, dry_run, patience)
