"""`tbps data mannequins`: draw a synthetic data set."""

from pathlib import Path
from typing import Annotated

import typer


def mannequins(
    folder: Annotated[Path, typer.Argument(help="folder to write; must be missing or empty")],
    train: Annotated[int, typer.Option(help="people in the train split; 0 for no such split")] = 1000,
    val: Annotated[int | None, typer.Option(help="people in the val split; default: 100, for icfg-pedes 0")] = None,
    test: Annotated[
        int, typer.Option(help="people in the test split; a third of them differ from another one in few attributes")
    ] = 300,
    images: Annotated[int, typer.Option(help="images per person, each of another view and camera")] = 4,
    seed: Annotated[int, typer.Option(help="random seed; equal seeds and sizes give equal files")] = 0,
    layout: Annotated[str, typer.Option(help="format to write: folder, cuhk-pedes, icfg-pedes, rstpreid or tbps")] = "folder",
    workers: Annotated[int | None, typer.Option(help="processes that draw; default: one per core")] = None,
) -> None:
    """Draw a data set of mannequins: synthetic pedestrians with correct captions, in the format of your choice.

    No real person is shown, and no person is in two splits. Besides captions and paraphrases, the format `folder` holds the
    attributes that each image shows and that each caption mentions. From these `tbps evaluate` computes the ceiling: the result of
    ranking by all attributes.

    Example: tbps data mannequins mannequins --train 1000 --val 100 --test 300 --seed 7
    """
    from tbps.cli import console
    from tbps.data import SplitSize, write_mannequins

    people = {"train": train, "val": val if val is not None else 0 if layout == "icfg-pedes" else 100, "test": test}
    splits = {name: SplitSize(count, images) for name, count in people.items() if count != 0}
    with console.progress("drawing", "images") as on_progress:
        written = write_mannequins(folder, splits, seed, layout, workers, on_progress)
    counts = ", ".join(f"{name} {count:,}" for name, count in written.images.items())
    verb = "wrote" if written.fresh else "found, already complete,"
    console.output.print(f"{verb} {sum(written.images.values()):,} images ({counts}) in {folder}", highlight=False, soft_wrap=True)
    if "train" in splits:
        following = f"tbps train mannequin_start --data {layout} --root {folder} --out runs/start"
    else:
        following = f"tbps evaluate models/mannequin-tiny --data {layout} --root {folder} --split {next(iter(splits))}"
    console.output.print(f"next: {following}", highlight=False, soft_wrap=True)
