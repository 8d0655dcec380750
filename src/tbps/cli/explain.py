"""`tbps explain`."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from tbps.cli.console import messages, output, plain
from tbps.cli.models import open_model
from tbps.cli.search import MINUS

if TYPE_CHECKING:
    from tbps.gallery import Word

_BAR = 24


def explain(
    gallery: Annotated[Path, typer.Argument(help="folder of the gallery")],
    query: Annotated[list[str], typer.Argument(help='descriptions in quotes, as for tbps search; "-backpack" avoids')],
    id: Annotated[str, typer.Option("--id", help="the image, by its id in the JSON of a search")],
    out: Annotated[Path, typer.Option(help="picture of the regions: .png")] = Path("why.png"),
    model: Annotated[str | None, typer.Option(help="model folder or id, if it is no longer where it was at indexing")] = None,
) -> None:
    """Say why an image fits a description: what each word and each region of the image carried of the score.

    A word carried what the score would lose without it; a region, its share of the way from a grey picture to this one.

    Example: tbps explain my-gallery "a woman in a red coat" --id 9a3ce997fb93425d4e0fd1ee --out why.png
    """
    from tbps.errors import SettingsError
    from tbps.gallery import Gallery, Query, phrase, recorded
    from tbps.storage import write_bytes

    if out.suffix.lower() != ".png":
        raise SettingsError(f"the picture {out} must end in .png")
    asked = Query(texts=tuple(phrase(text.replace(MINUS, "-")) for text in query))
    recorded(gallery)
    opened = Gallery.open(gallery, open_model(model, gallery), create=False)
    found = opened.explain(asked, id)
    strongest = max((abs(word.weight) for word in found.words), default=0.0) or 1.0
    table = Table(title=f"score {found.score:.3f}", title_justify="left")
    for name in ("word", "carried", ""):
        table.add_column(name, justify="right" if name == "carried" else "left", overflow="fold")
    for word in found.words:
        table.add_row(plain(word.word), f"{word.weight:+.3f}", _bar(word, strongest))
    output.print(table)
    for notice in dict.fromkeys(found.notices):
        messages.print(plain(f"note: {notice}"), soft_wrap=True)
    from tbps.gallery import draw_explanation

    buffer = io.BytesIO()
    draw_explanation(found, opened.image(id).thumbnail).save(buffer, "PNG")
    write_bytes(out, buffer.getvalue())
    messages.print(plain(f"picture: {out}"), soft_wrap=True)


def _bar(word: "Word", strongest: float) -> Text:
    length = round(_BAR * abs(word.weight) / strongest)
    return Text("\u2588" * length, style="green" if word.weight > 0 else "red")
