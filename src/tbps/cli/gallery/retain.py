"""`tbps gallery retain`: forget what is older than the rules allow."""

from typing import Annotated

import typer

from tbps.cli.console import say
from tbps.cli.gallery.arguments import Folder
from tbps.cli.gallery.forget import tell, tell_undated


def retain(
    folder: Folder,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Forget what is older than the gallery's rules allow, as `tbps forget` does; made to be run every day.

    Images without a time are kept, since nothing says how old they are.

    Example: tbps gallery retain my-gallery --dry-run
    """
    from tbps.gallery import retain as retain_gallery

    report = retain_gallery(folder, dry_run)
    if report is None:
        say(f"gallery {folder} has no rule; set one with: tbps gallery retention {folder} --default-days 90")
    else:
        tell(report)
        tell_undated(report)
