"""`tbps keys`: who may use the service of a gallery."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tbps.cli.console import messages, output, plain
from tbps.cli.streams import OutputError

keys = typer.Typer(name="keys", help="Keys of the service (`tbps serve`).", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="gallery folder")]
State = Annotated[Path | None, typer.Option(help="folder of keys and audit log, if it is not GALLERY.service")]
_COMMAND_LINE = "command line"


@keys.command()
def add(
    gallery: Folder,
    name: Annotated[str, typer.Argument(help="whose key it is, as the audit log shall say")],
    role: Annotated[str, typer.Option(help="viewer: search and look; curator: also upload; administrator: also erase")] = "viewer",
    camera: Annotated[list[str] | None, typer.Option(help="all that there is for this key; may be repeated")] = None,
    state: State = None,
) -> None:
    """Make a key and print it, once: only a hash of it is kept. A running service knows it at once.

    Example: tbps keys add my-gallery "front desk" --role viewer --camera lobby
    """
    from tbps.errors import SettingsError
    from tbps.gallery import cameras_of, canonical_name, no_camera, recorded, sentences
    from tbps.server import Audit, Keys, Role, open_state

    if role not in list(Role):
        raise SettingsError(f"role {role!r} is none of {', '.join(Role)}")
    place = _state(gallery, state)
    for remark in open_state(place, gallery, recorded(gallery)):
        messages.print(plain(f"note: {remark}"), soft_wrap=True)
    kept = Keys(place)
    secret, key = kept.add(name, Role(role), tuple(camera) if camera else None)
    Audit(place).write(_COMMAND_LINE, "", "key added", of=key.name, id=key.id, role=key.role, cameras=key.cameras)
    try:
        typer.echo(secret)
    except OutputError:  # a key that nobody has seen
        kept.remove(name)
        Audit(place).write(_COMMAND_LINE, "", "key removed", of=key.name, id=key.id)
        raise
    messages.print(plain(f"the key of {name!r} ({role}); it is shown this once"), soft_wrap=True)
    known = cameras_of(gallery) if camera else set()
    for unknown in [each for each in camera or [] if canonical_name(each) not in known]:
        messages.print(
            plain(f"note: {sentences(no_camera(unknown, known), 'The key holds for images that come later')}"), soft_wrap=True
        )


@keys.command("list")
def list_(
    gallery: Folder,
    state: State = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Whose keys there are, with role, cameras and day. The keys themselves are kept nowhere.

    Example: tbps keys list my-gallery
    """
    from tbps.server import Keys

    found = Keys(_place(gallery, state)).all()
    if as_json:
        typer.echo(json.dumps([key.model_dump(mode="json", exclude={"hash"}) for key in found], indent=2))
        return
    table = Table("name", "role", "cameras", "made", "id")
    for key in found:
        cameras = "all" if key.cameras is None else ", ".join(key.cameras)
        table.add_row(plain(key.name), key.role, plain(cameras), key.created[:10], key.id)
    output.print(table)


@keys.command()
def remove(gallery: Folder, name: Annotated[str, typer.Argument(help="whose key")], state: State = None) -> None:
    """Take a key away; sessions that were begun with it end at once.

    Example: tbps keys remove my-gallery "front desk"
    """
    from tbps.server import Audit, Keys

    place = _place(gallery, state)
    key = Keys(place).remove(name)
    Audit(place).write(_COMMAND_LINE, "", "key removed", of=key.name, id=key.id)
    output.print(plain(f"the key of {name!r} is no longer accepted"), soft_wrap=True)


def _state(gallery: Path, state: Path | None) -> Path:
    from tbps.server import state_folder

    return state or state_folder(gallery)


def _place(gallery: Path, state: Path | None) -> Path:
    """The state folder, once it is known to be that of the gallery."""
    from tbps.server import known_state

    return known_state(_state(gallery, state), gallery)
