"""`tbps data`: commands for data sets, one file per command."""

import typer

from tbps.cli.data.augmentations import show_augmentations
from tbps.cli.data.backtranslate import backtranslate
from tbps.cli.data.cache import cache
from tbps.cli.data.check import check, describe
from tbps.cli.data.mannequins import mannequins

data = typer.Typer(name="data", help="Write, check and describe data sets.", no_args_is_help=True)
for verb in (mannequins, check, describe, show_augmentations, backtranslate, cache):
    data.command()(verb)
