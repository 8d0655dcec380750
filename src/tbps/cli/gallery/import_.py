"""`tbps gallery import`: add the images of an export."""

from pathlib import Path
from typing import Annotated

import typer

from tbps.cli.console import note, progress, say


def import_(
    source: Annotated[Path, typer.Argument(help="folder or .tar file made by `tbps gallery export`")],
    folder: Annotated[Path, typer.Argument(help="gallery folder of the same model; created if it does not exist")],
    model: Annotated[
        str | None, typer.Option(help="model folder or id for a new gallery: the model that the export was made with")
    ] = None,
) -> None:
    """Add the images of an export to a gallery of the same model; images that the gallery already has are skipped.

    The whole export is checked before the first image is added, and nothing is unpacked to disk. After an interruption run the
    command again.

    Example: tbps gallery import my-gallery.tar another-gallery --model models/mannequin-tiny
    """
    from tbps.cli.models import open_model
    from tbps.gallery import import_export

    opened = None if model is None else open_model(model, folder)
    with progress("importing", "images") as on_progress:
        done = import_export(folder, source, opened, on_progress)
    say(f"{done.images:,} images added to {folder}, {done.skipped_existing:,} already there")
    for line in done.notes:
        note(line)
