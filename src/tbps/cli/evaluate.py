"""`tbps evaluate`: Rank-k, mAP and mINP of a model on a split."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tbps.cli.console import output
from tbps.cli.embed import embed_with, tell
from tbps.cli.standing import standing_table


def evaluate(
    model: Annotated[str | None, typer.Argument(help="model folder or Hugging Face id; leave out with --embeddings")] = None,
    data: Annotated[
        str | None, typer.Option(help="format of the data set: cuhk-pedes, icfg-pedes, rstpreid, tbps, ufine6926, folder")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="folder of the data set")] = None,
    split: Annotated[str, typer.Option(help="train, val or test")] = "test",
    embeddings: Annotated[Path | None, typer.Option(help="score this file of `tbps embed` instead")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="go on without the images whose files are missing; they are counted")
    ] = False,
) -> None:
    """Score a model: every caption of the split against every image of it.

    An image is right when it shows the caption's identity. Equal scores count against the model. Chance is the expectation of a
    random ranking; the ceiling, on data with known attributes, is ranking by the attributes that a caption mentions.

    Example: tbps evaluate models/mannequin-tiny --data folder --root mannequins --split test
    """
    from tbps.data import ceiling_scores, read_dataset
    from tbps.errors import SettingsError
    from tbps.evaluation import Embeddings, score

    if embeddings is not None:
        standing, title = score(Embeddings.load(embeddings)), str(embeddings)
    elif model is not None and data is not None and root is not None:
        dataset = read_dataset(data, root, allow_missing=allow_missing)
        tell(dataset.warnings if allow_missing else ())
        images = dataset.split(split)
        standing, title = score(embed_with(model, images, split), ceiling_scores(images)), f"{model} on {root} ({split})"
    else:
        raise SettingsError("give a model with --data and --root, or --embeddings FILE")
    if as_json:
        values = {"model": standing.model, "ceiling": standing.ceiling, "chance": standing.chance}
        print(json.dumps({name: asdict(report) if report else None for name, report in values.items()}))
    else:
        output.print(standing_table(standing, title))
