"""`tbps gallery retain`: erase images that are older than the retention rules allow."""

from typing import Annotated

import typer

from tbps.cli.console import say
from tbps.cli.gallery.arguments import Folder
from tbps.cli.gallery.forget import print_report, warn_undated


def retain(
    folder: Folder,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be erased, and erase nothing")] = False,
) -> None:
    """Erase images that are older than the gallery's retention rules allow, as `tbps forget` does; run it every day.

    Images without a time are kept, since their age is unknown.

    Example: tbps gallery retain my-gallery --dry-run
    """
    from tbps.gallery import retain as retain_gallery

    report = retain_gallery(folder, dry_run)
    if report is None:
        say(f"gallery {folder} has no rule; set one with: tbps gallery retention {folder} --default-days 90")
    else:
        print_report(report)
        warn_undated(report)
