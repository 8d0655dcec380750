"""`tbps data mannequins`: writes the synthetic data set."""

from pathlib import Path
from typing import Annotated

import typer


def mannequins(
    folder: Annotated[Path, typer.Argument(help="Where to write; must be missing or empty.")],
    train: Annotated[int, typer.Option(help="People to train on; 0 leaves the split out.")] = 1000,
    val: Annotated[int | None, typer.Option(help="People to choose the best epoch on; 100, but 0 for icfg-pedes.")] = None,
    test: Annotated[int, typer.Option(help="People to report results on; a third of them are near-twins of another.")] = 300,
    images: Annotated[int, typer.Option(help="Images of each person, each from another view and camera.")] = 4,
    seed: Annotated[int, typer.Option(help="The same seed and sizes give the same files.")] = 0,
    layout: Annotated[str, typer.Option(help="folder, cuhk-pedes, icfg-pedes, rstpreid or tbps.")] = "folder",
    workers: Annotated[int | None, typer.Option(help="Processes that draw; by default one a core.")] = None,
) -> None:
    """Draws mannequins: synthetic pedestrians with truthful captions, in the annotation layout of your choice.

    Nobody real is shown. No two splits share a person. Besides captions and paraphrases, the layout `folder` holds what each
    image shows and what each caption claims, from which `tbps evaluate` reports the ceiling: what knowing every attribute
    would reach.

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
