"""`tbps gallery compact`: merge the pieces that many commits left."""

from tbps.cli.console import say
from tbps.cli.gallery.arguments import Folder


def compact(folder: Folder) -> None:
    """Merge the pieces that many commits left, and remove old versions.

    Indexing does this by itself when it is worth its cost. Whoever writes waits meanwhile; searches go on.

    Example: tbps gallery compact my-gallery
    """
    from tbps.gallery import compact as compact_gallery

    done = compact_gallery(folder)
    before = f"{done.bytes_before:,} bytes and {done.versions_before:,} versions before"
    say(f"{before}, {done.bytes_after:,} and {done.versions_after:,} after")
