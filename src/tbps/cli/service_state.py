"""Arguments of the commands that read or change the state folder of a gallery's service: its keys and its audit log."""

from pathlib import Path
from typing import Annotated

import typer

Gallery = Annotated[Path, typer.Argument(help="gallery folder")]
State = Annotated[Path | None, typer.Option(help="folder of keys and audit log, if it is not GALLERY.service")]


def default_state(gallery: Path) -> Path:
    """The default state folder of a gallery's service: GALLERY.service."""
    from tbps.server import state_folder

    return state_folder(gallery)


def known_state_of(gallery: Path, state: Path | None) -> Path:
    """The state folder of a gallery's service. Raises SettingsError if it belongs to another gallery."""
    from tbps.server import known_state

    return known_state(state or default_state(gallery), gallery)
