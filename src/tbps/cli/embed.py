"""`tbps embed`: write the embeddings of a split to a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbps.cli.console import note, output, progress
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
        bool, typer.Option("--allow-missing", help="skip images whose files are missing, and say how many")
    ] = False,
) -> None:
    """Write the embeddings of a split's images and captions to a file for `tbps evaluate --embeddings`.

    The file holds the tensors `text` and `image` (float32, unit rows) and the identities `text_ids` and `image_ids`; its header
    holds the fingerprint of the model.

    Example: tbps embed models/mannequin-tiny test.safetensors --data folder --root mannequins
    """
    from tbps.data import read_dataset

    dataset = read_dataset(data, root, allow_missing=allow_missing)
    print_notes(dataset.warnings if allow_missing else ())
    embedded = embed_with(model, dataset.split(split), split)
    embedded.save(out)
    rows = f"{len(embedded.text):,} captions and {len(embedded.image):,} images"
    output.print(f"{rows} of {embedded.image.shape[1]} dimensions in {out}", highlight=False)


def print_notes(warnings: "Iterable[str]") -> None:
    """Print the warnings of a data set's reader."""
    for warning in warnings:
        note(warning)


def embed_with(model: str, split: "PersonDataset", name: str) -> "Embeddings":
    """Embed the images and captions of a split, with a progress bar."""
    from tbps.data import decoded, describe_source, embed_split, identities
    from tbps.evaluation import Embeddings
    from tbps.model import load

    towers = load(model, best_device())
    with progress("embedding", "images") as on_progress:
        arrays = decoded(split.images, towers.spec)
        rows = embed_split(split, arrays, towers.encode_arrays, towers.encode_texts, on_progress)
    return Embeddings(*rows, *identities(split), model=towers.fingerprint, source=describe_source(split, name))
