"""`tbps gallery`: commands that maintain a gallery, one file per command."""

import typer

from tbps.cli.gallery.check import check
from tbps.cli.gallery.compact import compact
from tbps.cli.gallery.export import export
from tbps.cli.gallery.import_ import import_
from tbps.cli.gallery.info import info
from tbps.cli.gallery.reembed import reembed
from tbps.cli.gallery.restore import restore
from tbps.cli.gallery.retain import retain
from tbps.cli.gallery.retention import retention
from tbps.cli.gallery.snapshot import snapshot
from tbps.cli.gallery.snapshots import snapshots

gallery = typer.Typer(name="gallery", help="Maintain a gallery: inspect, copy, compact, restore, retention.", no_args_is_help=True)
gallery.command()(info)
gallery.command()(compact)
gallery.command()(reembed)
gallery.command()(export)
gallery.command("import")(import_)
gallery.command()(snapshot)
gallery.command()(snapshots)
gallery.command()(restore)
gallery.command()(retention)
gallery.command()(retain)
gallery.command()(check)
