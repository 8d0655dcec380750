"""Cost from 1,000 to 100,000 images: `python benchmarks/scaling.py [--toy]`; `report.py` draws the plot.

Measures for a data set of each size: drawing a batch (augmenting captions and gathering images); one training step of a small
model; evaluation of 1,000 queries against a gallery of that size, four images per person; building the cache at 32 x 32 pixels with
one process. Drawing 100,000 mannequins would take minutes, so 200 images are listed repeatedly; the cache decodes each listing
separately, from the page cache. The two largest caches are built once.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import Measurement, say, timed
from results import Benchmark, run_alone
from side_by_side import embeddings
from subjects import captions_of, draw_people, endless, random_model, toy_shape

from tbps.data import ImageCache, PersonDataset
from tbps.evaluation import retrieval_metrics
from tbps.preprocess.image import ImageSpec
from tbps.study.recipes import simplified_tbps_clip
from tbps.training.log import NoLog
from tbps.training.observer import Silent
from tbps.training.run import Run

SIZES, TOY_SIZES = (1000, 3162, 10_000, 31_623, 100_000), (20, 40)
CACHED_OFTEN = 10_000
QUERIES = 1000
BATCH = 128


def measure(toy: bool, runs: int) -> Benchmark:
    sizes, batch = (TOY_SIZES, 8) if toy else (SIZES, BATCH)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        drawn = draw_people(folder / "people", 4 if toy else 100, 2)
        rows = [row for size in sizes for row in of_size(repeated(drawn, size), folder / str(size), batch, runs)]
    return Benchmark("scaling", rows, {"batch": batch, "queries": QUERIES, "pixels": 32, "threads": torch.get_num_threads()})


def of_size(dataset: PersonDataset, folder: Path, batch: int, runs: int) -> list[Measurement]:
    """Measures all four quantities for one data set."""
    train, spec = dataset.split("train"), ImageSpec(height=32, width=32)
    size = len(train.images)
    often = runs if size <= CACHED_OFTEN else 1
    places = [folder / str(number) for number in range(1, often)] + [folder / "cache"]  # the last one is used for training
    built = tuple(timed(partial(ImageCache.open, train, spec, place, workers=1)) for place in places)
    model = random_model(toy_shape(), captions_of(dataset)[: 4 * QUERIES])
    run = Run(simplified_tbps_clip().override({"batch_size": batch}), model, dataset, folder, Silent())
    batches = endless(run.batches)
    text, image, text_ids, image_ids = embeddings(min(QUERIES, size), size, size // 4)
    kinds: dict[str, Callable[[], object]] = {
        "batch drawn": lambda: next(batches),
        "training step": partial(run.update, NoLog()),
        "evaluation": lambda: retrieval_metrics(text, image, text_ids, image_ids),
    }
    rows = [Measurement("cache built", "s", built, size)]
    for name, kind in kinds.items():
        kind()
        rows.append(Measurement(name, "s", tuple(timed(kind) for _ in range(runs)), size))
    say(f"{size:,} crops: " + ", ".join(f"{row.what} {row.median:.3g} s" for row in rows))
    return rows


def repeated(drawn: PersonDataset, size: int) -> PersonDataset:
    """Repeats the drawn training images under new identities up to `size`, and keeps the validation images."""
    originals = drawn.split("train").images
    people = len({image.identity for image in originals})
    images = tuple(
        replace(image, identity=image.identity + people * (number // len(originals)))
        for number, image in enumerate(islice(cycle(originals), size))
    )
    return PersonDataset(drawn.name, drawn.root, (*images, *drawn.split("val").images))


def draw(benchmark: dict[str, Any], file: Path) -> None:
    """Plots seconds against images, both on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    conditions = benchmark["conditions"]
    labels = {
        "cache built": f"cache built, {conditions['pixels']} x {conditions['pixels']} pixels, one process",
        "evaluation": f"evaluation, {conditions['queries']:,} queries",
        "training step": f"training step, batch {conditions['batch']}, small model",
        "batch drawn": f"batch of {conditions['batch']} drawn",
    }
    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for what, label in labels.items():
        rows = [row for row in benchmark["rows"] if row["what"] == what]
        sizes, medians = [row["at"] for row in rows], np.array([row["median"] for row in rows])
        spread = [medians - [row["least"] for row in rows], [row["most"] for row in rows] - medians]
        axes.errorbar(sizes, medians, yerr=np.maximum(spread, 0), marker="o", capsize=3, label=label)
    axes.set(xscale="log", yscale="log", xlabel="crops", ylabel="seconds (median, least and most)")
    axes.grid(True, which="major", alpha=0.4)
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    run_alone(measure, __doc__)
