"""`tbps gallery restore`: go back to a named copy."""

from typing import Annotated

import typer

from tbps.cli.console import say
from tbps.cli.gallery.arguments import Folder, Yes


def restore(folder: Folder, name: Annotated[str, typer.Argument(help="name of the snapshot")], yes: Yes = False) -> None:
    """Make the gallery what it was when the snapshot was taken, without what was forgotten since.

    What was added since is lost from the gallery; the snapshot stays. Take another snapshot first to be able to come back.

    Example: tbps gallery restore my-gallery before-monday --yes
    """
    from tbps.gallery import describe
    from tbps.gallery import restore as restore_snapshot

    if not yes:
        typer.confirm(f"{folder} holds {describe(folder).images:,} images. Replace them by those of snapshot {name}?", abort=True)
    say(f"gallery {folder} holds the {restore_snapshot(folder, name).images:,} images of snapshot {name}")
