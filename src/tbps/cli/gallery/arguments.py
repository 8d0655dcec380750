"""Arguments shared by several gallery commands."""

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="gallery folder made by `tbps index`")]
Yes = Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")]
