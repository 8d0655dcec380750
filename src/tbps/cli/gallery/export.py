"""`tbps gallery export`: copy a gallery to a folder or archive."""

from pathlib import Path
from typing import Annotated

import typer

from tbps.cli.console import progress, say
from tbps.cli.gallery.arguments import Folder


def export(folder: Folder, target: Annotated[Path, typer.Argument(help="folder or .tar archive to create")]) -> None:
    """Copy a gallery to a folder or archive: rows as JSON lines, embeddings as .npy, thumbnails as .jpg, and checksums.

    The copy is not updated: images that are erased from the gallery later remain in the copy.

    Example: tbps gallery export my-gallery my-gallery.tar
    """
    from tbps.gallery import export as export_gallery

    with progress("exporting", "images") as on_progress:
        done = export_gallery(folder, target, on_progress)
    say(f"{done.images:,} images written to {target} in {done.seconds:,.1f} s")
