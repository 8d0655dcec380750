"""`tbps gallery snapshot`: keep or remove a named copy."""

from typing import Annotated

import typer

from tbps.cli.console import say
from tbps.cli.gallery.arguments import Folder


def snapshot(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="letters, digits, dots, dashes and underscores")],
    remove: Annotated[bool, typer.Option("--remove", help="remove this snapshot instead")] = False,
) -> None:
    """Keep the gallery as it is now under a name; costs space only for what is rewritten later.

    Images that are forgotten later go from snapshots too.

    Example: tbps gallery snapshot my-gallery before-monday
    """
    from tbps.gallery import remove_snapshot, take_snapshot

    if remove:
        remove_snapshot(folder, name)
        say(f"snapshot {name} of gallery {folder} is removed")
    else:
        say(f"snapshot {name} holds {take_snapshot(folder, name).images:,} images of gallery {folder}")
