"""`tbps gallery restore`: return a gallery to a snapshot."""

from typing import Annotated

import typer

from tbps.cli.console import say
from tbps.cli.gallery.arguments import Folder, Yes


def restore(folder: Folder, name: Annotated[str, typer.Argument(help="name of the snapshot")], yes: Yes = False) -> None:
    """Return a gallery to a snapshot, without images that were erased since.

    Images that were added since are lost; the snapshot stays. To be able to undo this, take another snapshot first.

    Example: tbps gallery restore my-gallery before-monday --yes
    """
    from tbps.gallery import describe
    from tbps.gallery import restore as restore_snapshot

    if not yes:
        typer.confirm(f"{folder} holds {describe(folder).images:,} images. Replace them by those of snapshot {name}?", abort=True)
    say(f"gallery {folder} holds the {restore_snapshot(folder, name).images:,} images of snapshot {name}")
