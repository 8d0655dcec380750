"""`tbps search`: people in a gallery by description or by picture."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tbps.cli.console import messages, output
from tbps.cli.index import open_model

if TYPE_CHECKING:
    from tbps.search.hits import Hit

_Result = tuple[str, "list[Hit]"]


def search(
    gallery: Annotated[Path, typer.Argument(help="gallery folder made by `tbps index`")],
    query: Annotated[list[str] | None, typer.Argument(help="descriptions, each in quotes")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="search with a picture; may be repeated")] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="hits for each query")] = 10,
    where: Annotated[str | None, typer.Option(help="SQL condition on the metadata columns")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    sheet: Annotated[Path | None, typer.Option(help="draw queries and hits into this picture (.png, .jpg, .webp)")] = None,
    model: Annotated[str | None, typer.Option(help="model folder or id, if it is no longer where it was at indexing")] = None,
) -> None:
    """Find the people of a gallery who fit a description, best first, with the cosine similarity as score.

    Filters are SQL conditions on camera, captured_at, identity, source and every simple column of the metadata; an unknown
    column is answered with the list of columns. Times are UTC.

    Example: tbps search my-gallery "a woman in a red coat with a black backpack" -k 5 --sheet hits.png

    Example: tbps search my-gallery "a man with an umbrella" --where "camera = 'lobby' and captured_at >= '2024-05-01'" --json
    """
    from tbps.errors import QueryError
    from tbps.search.gallery import Gallery
    from tbps.search.manifest import recorded

    texts, pictures = query or [], image or []
    if not texts and not pictures:
        raise QueryError("no query: describe the person in quotes, or give a picture with --image")
    recorded(gallery)
    asked = open_model(model, gallery)
    opened = Gallery.open(gallery, asked, create=False)
    results: list[_Result] = []
    for text in texts:
        results.append((text, opened.search(text, k, where)))
        if asked.is_cut(text):
            messages.print(
                f"note: the query is longer than the {asked.context_length} tokens the model reads; its end was not used",
                highlight=False,
            )
    results += [(str(picture), opened.search_image(picture, k, where)) for picture in pictures]
    if as_json:
        typer.echo(json.dumps([{"query": name, "hits": [_plain(hit) for hit in hits]} for name, hits in results], indent=2))
    else:
        for name, hits in results:
            output.print(_table(name, hits))
    if sheet is not None:
        _draw(results, sheet)
        messages.print(f"contact sheet: {sheet}", markup=False, highlight=False, soft_wrap=True)


def _plain(hit: "Hit") -> dict[str, Any]:
    return {
        "rank": hit.rank,
        "score": hit.score,
        "id": hit.id,
        "source": hit.source,
        "path": None if hit.path is None else str(hit.path),
        "camera": hit.camera,
        "captured_at": hit.captured_at,
        "identity": hit.identity,
        "attributes": dict(hit.attributes),
    }


def _table(name: str, hits: "Sequence[Hit]") -> Table:
    table = Table(title=Text(name), title_justify="left", caption=None if hits else Text("no image passes the filter"))
    for column in ("rank", "score"):
        table.add_column(column, justify="right")
    for column in ("source", "camera", "captured at"):
        table.add_column(column, overflow="fold")
    for hit in hits:
        table.add_row(str(hit.rank), f"{hit.score:.3f}", Text(hit.source), Text(hit.camera or ""), Text(hit.captured_at or ""))
    return table


def _draw(results: Sequence[_Result], file: Path) -> None:
    from PIL import Image

    from tbps.errors import SettingsError
    from tbps.sheet import SheetRow, Tile, contact_sheet
    from tbps.storage import write_bytes

    kind = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(file.suffix.lower())
    if kind is None:
        raise SettingsError(f"the contact sheet {file} must end in .png, .jpg or .webp")
    rows = [
        SheetRow(name, tuple(Tile(Image.open(io.BytesIO(hit.thumbnail)), f"{hit.rank}   {hit.score:.3f}") for hit in hits))
        for name, hits in results
    ]
    buffer = io.BytesIO()
    contact_sheet(rows).save(buffer, kind)
    write_bytes(file, buffer.getvalue())
