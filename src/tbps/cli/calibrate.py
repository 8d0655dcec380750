"""`tbps calibrate`: estimate from a labelled split how likely a hit with a given score is to be right."""

from pathlib import Path
from typing import Annotated

import typer

from tbps.cli.console import output, plain
from tbps.cli.embed import embed_with


def calibrate(
    model: Annotated[Path, typer.Argument(help="model folder")],
    data: Annotated[str, typer.Option(help="format of the data set: cuhk-pedes, icfg-pedes, rstpreid, tbps, ufine6926, folder")],
    root: Annotated[Path, typer.Option(help="folder of the data set")],
    split: Annotated[str, typer.Option(help="train, val or test; the model must not have been trained on it")] = "val",
    embeddings: Annotated[
        Path | None, typer.Option(help="file written by `tbps embed` for the split, instead of embedding it now")
    ] = None,
) -> None:
    """Calibrate a model, so that searches with it estimate how many of their hits are right.

    Compares every caption of a split with every image of it. Isotonic regression estimates the share of right pairs from how far
    a score lies above the mean of the gallery, in standard deviations. The result is calibration.json in the model's folder,
    which `tbps search` reads.

    The estimate is valid for descriptions like the captions of the split, and for galleries with about as many images of each
    person.

    Example: tbps calibrate models/mannequin-tiny --data folder --root mannequins --split val
    """
    import numpy as np

    from tbps.data import read_dataset
    from tbps.errors import SettingsError
    from tbps.evaluation import Embeddings
    from tbps.evaluation.calibration import share_of_right
    from tbps.gallery import Calibration, Moments

    if not model.is_dir():
        raise SettingsError(f"{model} is not a model folder; the calibration is written into one")
    if embeddings is None:
        found = embed_with(str(model), read_dataset(data, root).split(split), split)
    else:
        found = Embeddings.load(embeddings)
    moments = Moments(found.image)

    def relative(start: int, stop: int) -> np.ndarray:
        rows = found.text[start:stop].astype(np.float64)
        return np.stack([moments.z(row, found.image @ row.astype(np.float32)) for row in rows])

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
    output.print(plain(f"calibrated on {pairs}, {right:.1f} right images per caption: {file}"), soft_wrap=True)
