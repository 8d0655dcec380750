"""`tbps gallery export`: copy a gallery out."""

from pathlib import Path
from typing import Annotated

import typer

from tbps.cli.console import progress, say
from tbps.cli.gallery.arguments import Folder


def export(folder: Folder, target: Annotated[Path, typer.Argument(help="new folder, or new archive ending in .tar")]) -> None:
    """Copy a gallery out: rows as JSON lines, embeddings as .npy, thumbnails as .jpg, with checksums.

    The copy is outside the gallery: what is forgotten later stays in it.

    Example: tbps gallery export my-gallery my-gallery.tar
    """
    from tbps.gallery import export as export_gallery

    with progress("exporting", "images") as on_progress:
        done = export_gallery(folder, target, on_progress)
    say(f"{done.images:,} images written to {target} in {done.seconds:,.1f} s")
