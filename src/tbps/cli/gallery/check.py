"""`tbps gallery check`: measure the recall and the speed of searches in a gallery."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tbps.cli.console import output, plain
from tbps.cli.models import open_model


def check(
    gallery: Annotated[Path, typer.Argument(help="gallery folder made by `tbps index`")],
    queries: Annotated[Path | None, typer.Option(help="file with one description per line; default: 200 built-in ones")] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, max=100, help="number of best hits to compare")] = 10,
    where: Annotated[str | None, typer.Option(help="filter on the metadata columns, as for tbps search")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    model: Annotated[str | None, typer.Option(help="model folder or id, if it is no longer where it was at indexing")] = None,
) -> None:
    """Measure recall and time of searches in a gallery: the share of the exact best hits that they find, and ms per search.

    Galleries of up to 200,000 images are always searched exactly, larger ones approximately where recall is high enough.

    Example: tbps gallery check my-gallery --queries descriptions.txt --where "camera = 'lobby'"
    """
    from tbps.errors import QueryError
    from tbps.gallery import Gallery, descriptions

    texts = descriptions()
    if queries is not None:
        try:
            texts = [line for line in queries.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise QueryError(f"{queries} cannot be read as text ({error})") from error
    opened = Gallery.open(gallery, open_model(model, gallery), create=False)
    found = opened.check(texts, k, where)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    way = "approximately" if found.approximate else "exactly"
    output.print(
        plain(
            f"{found.images:,} images are searched {way}: {100 * found.recall:.1f} % of the best {found.k} are found "
            f"({100 * found.least:.0f} % for the worst of {found.queries:,} descriptions), "
            f"{1000 * found.seconds:.1f} ms per search, {1000 * found.exact_seconds:.1f} ms exactly"
        ),
        soft_wrap=True,
    )
