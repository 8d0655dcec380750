"""`tbps gallery reembed`: change the model of a gallery."""

from typing import Annotated

import typer

from tbps.cli.console import progress, say, warn
from tbps.cli.gallery.arguments import Folder


def reembed(
    folder: Folder,
    model: Annotated[str, typer.Option(help="new model of the gallery: folder or Hugging Face id")],
    thumbnails: Annotated[
        bool,
        typer.Option(
            "--thumbnails", help="embed the thumbnail of an image whose file is gone or changed; its scores are less accurate"
        ),
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="discard an unfinished re-embedding with another model")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="images per batch of the model")] = 64,
) -> None:
    """Embed all images of a gallery again with another model, from the indexed files, and search with that model from then on.

    Searches use the old embeddings until all new ones are written. After an interruption run the command again: it continues.
    Images whose files are gone or changed, or are inside archives and videos, can only be embedded from their thumbnails, which
    have at most 224 x 256 pixels.

    Example: tbps gallery reembed my-gallery --model models/clip-vit-base-patch16
    """
    from tbps.cli.models import open_model
    from tbps.gallery import Reembedding
    from tbps.gallery import reembed as reembed_gallery

    if thumbnails:
        warn("images embedded from thumbnails of at most 224 x 256 pixels are found less reliably than from their files")
    opened = open_model(model, folder)
    settings = Reembedding(thumbnails=thumbnails, restart=restart, batch_size=batch_size)
    with progress("embedding", "images") as on_progress:
        done = reembed_gallery(folder, opened, settings, on_progress)
    small = f", {done.from_thumbnails:,} of them from thumbnails" if done.from_thumbnails else ""
    earlier = f", {done.resumed:,} before" if done.resumed else ""
    say(f"{done.images:,} images embedded with {model}{small}{earlier}; gallery {folder} is searched with it from now on")
