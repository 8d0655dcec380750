"""`tbps evaluate`: Rank-k, mAP and mINP of a model on a split."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tbps.cli.console import output
from tbps.cli.embed import embed_with, print_notes
from tbps.cli.standing import standing_table


def evaluate(
    model: Annotated[str | None, typer.Argument(help="model folder or Hugging Face id; leave out with --embeddings")] = None,
    data: Annotated[
        str | None, typer.Option(help="format of the data set: cuhk-pedes, icfg-pedes, rstpreid, tbps, ufine6926, folder")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="folder of the data set")] = None,
    split: Annotated[str, typer.Option(help="train, val or test")] = "test",
    embeddings: Annotated[Path | None, typer.Option(help="file written by `tbps embed`, instead of a model and a data set")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="skip images whose files are missing, and say how many")
    ] = False,
) -> None:
    """Compute Rank-k, mAP and mINP of a model: every caption of a split searches among all images of the split.

    An image is right if it shows the identity of the caption. Among images of equal score the wrong ones count as ranked first.
    Chance is the expectation of a random ranking. The ceiling is the result of ranking by the attributes that a caption mentions;
    it needs a data set with attributes.

    Example: tbps evaluate models/mannequin-tiny --data folder --root mannequins --split test
    """
    from tbps.data import ceiling_scores, read_dataset
    from tbps.errors import SettingsError
    from tbps.evaluation import Embeddings, score

    if embeddings is not None:
        standing, title = score(Embeddings.load(embeddings)), str(embeddings)
    elif model is not None and data is not None and root is not None:
        dataset = read_dataset(data, root, allow_missing=allow_missing)
        print_notes(dataset.warnings if allow_missing else ())
        images = dataset.split(split)
        standing, title = score(embed_with(model, images, split), ceiling_scores(images)), f"{model} on {root} ({split})"
    else:
        raise SettingsError("give a model with --data and --root, or --embeddings FILE")
    if as_json:
        values = {"model": standing.model, "ceiling": standing.ceiling, "chance": standing.chance}
        print(json.dumps({name: asdict(report) if report else None for name, report in values.items()}))
    else:
        output.print(standing_table(standing, title))
