"""`tbps data cache`: list or erase the decoded images that training stores."""

from pathlib import Path
from typing import Annotated

import typer


def cache(
    folder: Annotated[Path | None, typer.Option("--cache", help="cache folder; default: $TBPS_CACHE or ~/.cache/tbps")] = None,
    erase: Annotated[bool, typer.Option("--erase", help="erase all; the next run decodes the images again")] = False,
) -> None:
    """List or erase the decoded images that `tbps train` stores for all runs.

    They are small copies of the images of every data set that was used for training, and remain when that data set is changed or
    deleted.

    Example: tbps data cache --erase
    """
    from tbps.cli.console import output, plain
    from tbps.data import cache_folder, cached_files, erase_cache

    place = folder or cache_folder()
    if erase:
        output.print(plain(f"{erase_cache(place) / 2**20:,.1f} MiB removed from {place}"), soft_wrap=True)
        return
    for file in cached_files(place):
        output.print(plain(f"{file.stat().st_size / 2**20:>10,.1f} MiB  {file.name}"), soft_wrap=True)
    output.print(plain(f"in {place}"), soft_wrap=True)
