"""`tbps index`: pictures into a gallery."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tbps.cli.console import messages, output, plain, progress
from tbps.cli.models import open_model

if TYPE_CHECKING:
    from tbps.search.gallery import IngestReport

_SHOWN = 10


def index(
    folder: Annotated[Path, typer.Argument(help="folder of pictures, searched with its subfolders; or one picture")],
    gallery: Annotated[Path, typer.Option(help="gallery folder; made if it is not there, else added to")],
    model: Annotated[
        str | None,
        typer.Option(envvar="TBPS_MODEL", help="model folder or Hugging Face id; an existing gallery remembers its own"),
    ] = None,
    metadata: Annotated[Path | None, typer.Option(help="read this file in place of FOLDER/metadata.jsonl")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures embedded at a time")] = 64,
    report: Annotated[Path | None, typer.Option(help="write what became of every picture to this JSON file")] = None,
    retain: Annotated[bool, typer.Option("--retain", help="then forget what is older than the gallery's rules allow")] = False,
) -> None:
    """Embed the pictures of a folder, once each, into a gallery that `tbps search` asks.

    Run it again at any time: pictures that are already there are skipped by their content, and an interrupted run is completed.
    Pictures that cannot be read are named, and the rest is indexed.

    A `metadata.jsonl` in the folder, one line a picture such as {"file_name": "a/1.jpg", "camera": "lobby", "captured_at":
    "2024-05-01T08:30:00"}, names the pictures to index; its columns can be filtered on.

    For photographs of people use a model of photographs; the bundled models/mannequin-tiny knows drawn mannequins only.

    Example: tbps index photos --gallery my-gallery --model models/clip-vit-base-patch16
    """
    from tbps.errors import DataError
    from tbps.search.gallery import Gallery
    from tbps.storage import write_text

    opened = Gallery.open(gallery, open_model(model, gallery))
    with progress("indexing", "images") as on_progress:
        outcome = opened.add(folder, metadata, on_progress, batch_size)
    _summarise(outcome, len(opened), gallery, report)
    if retain and (gone := opened.retain()) is not None:
        output.print(plain(f"{gone.images:,} images forgotten, which were older than the gallery keeps"), soft_wrap=True)
    if report is not None:
        write_text(report, json.dumps(asdict(outcome), indent=2) + "\n")
    if outcome.failed and not outcome.added and not outcome.skipped_existing:
        name, reason = outcome.failed[0]
        raise DataError(f"none of the {len(outcome.failed):,} pictures of {folder} could be indexed; the first: {name}: {reason}")


def _summarise(outcome: "IngestReport", images: int, gallery: Path, report: Path | None) -> None:
    rate = f" ({outcome.added / outcome.seconds:,.0f} a second)" if outcome.added else ""
    line = (
        f"{outcome.added:,} added in {outcome.seconds:,.1f} s{rate}, {outcome.skipped_existing:,} already there, "
        f"{len(outcome.failed):,} failed; gallery {gallery} holds {images:,} images"
    )
    output.print(plain(line), soft_wrap=True)
    for title, rows in (("failed", outcome.failed), ("duplicate", outcome.duplicates)):
        for name, reason in rows[:_SHOWN]:
            messages.print(Text(f"{title}: ", style="yellow") + plain(f"{name}: {reason}"), soft_wrap=True)
        if len(rows) > _SHOWN:
            where = f"all are in {report}" if report else "--report FILE keeps all"
            messages.print(plain(f"... and {len(rows) - _SHOWN:,} more; {where}"), soft_wrap=True)
    for note in outcome.notes:
        messages.print(Text("note: ", style="yellow") + plain(note), soft_wrap=True)
