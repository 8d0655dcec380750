"""`tbps embed`: a split's images and captions to one file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbps.cli.console import messages, output, plain, progress
from tbps.cli.models import best_device

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tbps.data import PersonDataset
    from tbps.evaluation import Embeddings


def embed(
    model: Annotated[str, typer.Argument(help="model folder or Hugging Face id")],
    out: Annotated[Path, typer.Argument(help="file to write, .safetensors")],
    data: Annotated[str, typer.Option(help="format of the data set: cuhk-pedes, icfg-pedes, rstpreid, tbps, ufine6926, folder")],
    root: Annotated[Path, typer.Option(help="folder of the data set")],
    split: Annotated[str, typer.Option(help="train, val or test")] = "test",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="go on without the images whose files are missing; they are counted")
    ] = False,
) -> None:
    """Embed the images and captions of a split once, to a file that `tbps evaluate --embeddings` scores.

    The file holds `text`, `image` (float32, unit rows), `text_ids`, `image_ids`, and the model's fingerprint in its header.

    Example: tbps embed models/mannequin-tiny test.safetensors --data folder --root mannequins
    """
    from tbps.data import read_dataset

    dataset = read_dataset(data, root, allow_missing=allow_missing)
    tell(dataset.warnings if allow_missing else ())
    embedded = embed_with(model, dataset.split(split), split)
    embedded.save(out)
    rows = f"{len(embedded.text):,} captions and {len(embedded.image):,} images"
    output.print(f"{rows} of {embedded.image.shape[1]} dimensions in {out}", highlight=False)


def tell(remarks: "Iterable[str]") -> None:
    """Prints a reader's remarks on what it read."""
    for remark in remarks:
        messages.print(plain(f"note: {remark}"), soft_wrap=True)


def embed_with(model: str, split: "PersonDataset", name: str) -> "Embeddings":
    """The split embedded by the model, with a progress bar."""
    from tbps.data import decoded, describe_source, embed_split, identities
    from tbps.evaluation import Embeddings
    from tbps.model import load

    towers = load(model, best_device())
    with progress("embedding", "images") as on_progress:
        arrays = decoded(split.images, towers.spec)
        rows = embed_split(split, arrays, towers.encode_arrays, towers.encode_texts, on_progress)
    return Embeddings(*rows, *identities(split), model=towers.fingerprint, source=describe_source(split, name))
