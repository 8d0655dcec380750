"""`tbps calibrate`: what a score is worth, measured on a labelled split."""

from pathlib import Path
from typing import Annotated

import typer

from tbps.cli.console import output, plain
from tbps.cli.embed import embed_with


def calibrate(
    model: Annotated[Path, typer.Argument(help="model folder")],
    data: Annotated[str, typer.Option(help="format of the data set: cuhk-pedes, icfg-pedes, rstpreid, tbps, ufine6926, folder")],
    root: Annotated[Path, typer.Option(help="folder of the data set")],
    split: Annotated[str, typer.Option(help="train, val or test; one that the model was not trained on")] = "val",
    embeddings: Annotated[Path | None, typer.Option(help="use this file of `tbps embed` for the split instead")] = None,
) -> None:
    """Let searches with a model say about how many of their results are right.

    Every caption of the split is compared with every image of it; isotonic regression gives the share of right ones by how far a
    score stands above the gallery's mean. It is written into the model's folder as calibration.json, which `tbps search` reads.

    The estimate holds for queries like the split's captions and galleries with about as many images of the person sought.

    Example: tbps calibrate models/mannequin-tiny --data folder --root mannequins --split val
    """
    import numpy as np

    from tbps.data import read_dataset
    from tbps.errors import SettingsError
    from tbps.evaluation import Embeddings
    from tbps.evaluation.calibration import share_of_right
    from tbps.gallery import Calibration, Spread

    if not model.is_dir():
        raise SettingsError(f"{model} is no model folder; a calibration is kept in one")
    if embeddings is None:
        found = embed_with(str(model), read_dataset(data, root).split(split), split)
    else:
        found = Embeddings.load(embeddings)
    spread = Spread(found.image)

    def relative(start: int, stop: int) -> np.ndarray:
        rows = found.text[start:stop].astype(np.float64)
        return np.stack([spread.z(row, found.image @ row.astype(np.float32)) for row in rows])

    z, share, right = share_of_right(relative, found.text_ids, found.image_ids)
    calibration = Calibration(
        model=found.model,
        source=found.source,
        queries=len(found.text),
        images=len(found.image),
        right=right,
        z=tuple(np.round(z, 3).tolist()),
        share=tuple(np.round(share, 6).tolist()),
    )
    file = calibration.save(model)
    pairs = f"{len(found.text):,} captions and {len(found.image):,} images"
    output.print(plain(f"calibrated on {pairs}, {right:.1f} right images a caption: {file}"), soft_wrap=True)
