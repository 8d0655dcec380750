"""`tbps gallery snapshot`: take or remove a snapshot."""

from typing import Annotated

import typer

from tbps.cli.console import say
from tbps.cli.gallery.arguments import Folder


def snapshot(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="name of letters, digits, dots, dashes and underscores")],
    remove: Annotated[bool, typer.Option("--remove", help="remove this snapshot instead")] = False,
) -> None:
    """Take a named snapshot of a gallery. It takes disk space only for data that is rewritten later.

    Images that are erased later are erased from snapshots too.

    Example: tbps gallery snapshot my-gallery before-monday
    """
    from tbps.gallery import remove_snapshot, take_snapshot

    if remove:
        remove_snapshot(folder, name)
        say(f"snapshot {name} of gallery {folder} is removed")
    else:
        say(f"snapshot {name} holds {take_snapshot(folder, name).images:,} images of gallery {folder}")
