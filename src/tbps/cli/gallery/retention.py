"""`tbps gallery retention`: show or change how long images are kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbps.cli.console import note, say
from tbps.cli.gallery.arguments import Folder

if TYPE_CHECKING:
    from tbps.gallery import Retention


def retention(
    folder: Folder,
    camera: Annotated[list[str] | None, typer.Option(help="set the rule of this camera; may be repeated")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="days that images of these cameras are kept")] = None,
    default_days: Annotated[int | None, typer.Option(min=1, help="days that images of other cameras, or of none, are kept")] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="remove the rules of these cameras, or without --camera the default")
    ] = False,
) -> None:
    """Show or change the retention rules of a gallery; `tbps gallery retain` erases images that are older.

    Example: tbps gallery retention my-gallery --camera lobby --days 30 --default-days 90
    """
    from tbps.errors import SettingsError
    from tbps.gallery import change_retention, read_retention, recorded

    if (bool(camera) and not remove) != (days is not None):
        raise SettingsError("a camera's rule needs both --camera and --days, as in --camera lobby --days 30")
    changes: dict[str | None, int | None] = dict.fromkeys(camera or [], days)
    if default_days is not None or (remove and not camera):
        changes[None] = default_days
    recorded(folder)
    if camera and not remove:
        _note_unknown(folder, camera)
    _show_rules(change_retention(folder, changes) if changes else read_retention(folder))


def rules_of(rules: "Retention") -> list[str]:
    """The rules as lines of text."""
    lines = [f"camera {camera}: {days} days" for camera, days in sorted(rules.cameras.items())]
    return [*lines, *([] if rules.default_days is None else [f"all others: {rules.default_days} days"])]


def _note_unknown(folder: Path, cameras: list[str]) -> None:
    """Note cameras without images, since their names may be mistyped."""
    from tbps.gallery import cameras_of, canonical_name, no_camera, sentences

    known = cameras_of(folder)
    for camera in cameras:
        if canonical_name(camera) not in known:
            note(sentences(no_camera(camera, known), "The rule applies to images added later"))


def _show_rules(rules: "Retention") -> None:
    for line in rules_of(rules) or ["no rule: images are kept"]:
        say(line)
