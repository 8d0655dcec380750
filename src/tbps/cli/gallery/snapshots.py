"""`tbps gallery snapshots`: list the snapshots of a gallery."""

from tbps.cli.console import say
from tbps.cli.gallery.arguments import Folder


def snapshots(folder: Folder) -> None:
    """List the snapshots of a gallery, oldest first.

    Example: tbps gallery snapshots my-gallery
    """
    from tbps.gallery import recorded
    from tbps.gallery import snapshots as list_snapshots

    recorded(folder)
    for kept in list_snapshots(folder):
        say(f"{kept.name}  {kept.taken}  {kept.images:,} images  {kept.model}")
