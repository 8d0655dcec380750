"""`tbps gallery reembed`: search with another model."""

from typing import Annotated

import typer

from tbps.cli.console import progress, say, warn
from tbps.cli.gallery.arguments import Folder


def reembed(
    folder: Folder,
    model: Annotated[str, typer.Option(help="model folder or Hugging Face id to search with from then on")],
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="use an image's thumbnail where its file is gone or changed; search suffers")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="drop what another model has begun")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures embedded at a time")] = 64,
) -> None:
    """Embed every image again with another model, from the files that were indexed, and then search with that model.

    The old embeddings answer until all new ones are there. Run it again after an interruption: it goes on where it was. Images
    whose files are gone, have changed, or lie in archives and videos can only be embedded from their thumbnails, of at most 224 x
    256 pixels.

    Example: tbps gallery reembed my-gallery --model models/clip-vit-base-patch16
    """
    from tbps.cli.models import open_model
    from tbps.gallery import Reembedding
    from tbps.gallery import reembed as reembed_gallery

    if thumbnails:
        warn("what is embedded from thumbnails of at most 224 x 256 pixels is found less well than from its file")
    opened = open_model(model, folder)
    settings = Reembedding(thumbnails=thumbnails, restart=restart, batch_size=batch_size)
    with progress("embedding", "images") as on_progress:
        done = reembed_gallery(folder, opened, settings, on_progress)
    small = f", {done.from_thumbnails:,} of them from thumbnails" if done.from_thumbnails else ""
    earlier = f", {done.resumed:,} before" if done.resumed else ""
    say(f"{done.images:,} images embedded with {model}{small}{earlier}; gallery {folder} is searched with it from now on")
