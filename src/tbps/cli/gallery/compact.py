"""`tbps gallery compact`: merge the files of a gallery and remove old versions."""

from tbps.cli.console import say
from tbps.cli.gallery.arguments import Folder


def compact(folder: Folder) -> None:
    """Merge the many small files of a gallery and remove its old versions.

    Indexing compacts automatically when that is worth its cost. Other writers wait meanwhile; searches continue.

    Example: tbps gallery compact my-gallery
    """
    from tbps.gallery import compact as compact_gallery

    done = compact_gallery(folder)
    before = f"{done.bytes_before:,} bytes and {done.versions_before:,} versions before"
    say(f"{before}, {done.bytes_after:,} and {done.versions_after:,} after")
