"""`tbps keys`: add, list and revoke the keys of a gallery's service."""

import json
from typing import Annotated

import typer
from rich.table import Table

from tbps.cli.console import messages, note, output, plain
from tbps.cli.service_state import Gallery, State, default_state, known_state_of
from tbps.cli.streams import OutputError

keys = typer.Typer(name="keys", help="Manage the keys of a service (`tbps serve`).", no_args_is_help=True)

_COMMAND_LINE = "command line"


@keys.command()
def add(
    gallery: Gallery,
    name: Annotated[str, typer.Argument(help="name of the key's holder, for the audit log")],
    role: Annotated[str, typer.Option(help="viewer: search and look; curator: also upload; administrator: also erase")] = "viewer",
    camera: Annotated[list[str] | None, typer.Option(help="restrict the key to this camera; may be repeated")] = None,
    state: State = None,
) -> None:
    """Create a key and print it, this once: only its hash is stored. A running service accepts it at once.

    Example: tbps keys add my-gallery "front desk" --role viewer --camera lobby
    """
    from tbps.errors import SettingsError
    from tbps.gallery import cameras_of, canonical_name, no_camera, recorded, sentences
    from tbps.server import Audit, Keys, Role, open_state

    if role not in list(Role):
        raise SettingsError(f"role {role!r} is none of {', '.join(Role)}")
    place = state or default_state(gallery)
    for remark in open_state(place, gallery, recorded(gallery)):
        note(remark)
    kept = Keys(place)
    secret, key = kept.add(name, Role(role), tuple(camera) if camera else None)
    Audit(place).write(_COMMAND_LINE, "", "key added", of=key.name, id=key.id, role=key.role, cameras=key.cameras)
    try:
        typer.echo(secret)
    except OutputError:  # nobody has seen the key
        kept.remove(name)
        Audit(place).write(_COMMAND_LINE, "", "key removed", of=key.name, id=key.id)
        raise
    messages.print(plain(f"the key of {name!r} ({role}); it is shown this once"), soft_wrap=True)
    known = cameras_of(gallery) if camera else set()
    for unknown in [each for each in camera or [] if canonical_name(each) not in known]:
        note(sentences(no_camera(unknown, known), "The key applies to images added later"))


@keys.command("list")
def list_(
    gallery: Gallery,
    state: State = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List the keys: holder, role, cameras and date. The keys themselves are not stored.

    Example: tbps keys list my-gallery
    """
    from tbps.server import Keys

    found = Keys(known_state_of(gallery, state)).all()
    if as_json:
        typer.echo(json.dumps([key.model_dump(mode="json", exclude={"hash"}) for key in found], indent=2))
        return
    table = Table("name", "role", "cameras", "made", "id")
    for key in found:
        cameras = "all" if key.cameras is None else ", ".join(key.cameras)
        table.add_row(plain(key.name), key.role, plain(cameras), key.created[:10], key.id)
    output.print(table)


@keys.command()
def remove(gallery: Gallery, name: Annotated[str, typer.Argument(help="name of the key's holder")], state: State = None) -> None:
    """Revoke a key. Sessions that were opened with it end at once.

    Example: tbps keys remove my-gallery "front desk"
    """
    from tbps.server import Audit, Keys

    place = known_state_of(gallery, state)
    key = Keys(place).remove(name)
    Audit(place).write(_COMMAND_LINE, "", "key removed", of=key.name, id=key.id)
    output.print(plain(f"the key of {name!r} is no longer accepted"), soft_wrap=True)
