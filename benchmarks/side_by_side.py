"""`tbps` against `plain.py` on the same weights, data and batch: `python benchmarks/side_by_side.py [--toy]`.

"Ours" is `tbps`, "plain" the trainer of `plain.py`. Three parts:

    training step   the full recipe `tbps_clip` at CLIP's ViT-B/32 shape with random weights, in float32 and bfloat16 autocast;
                    ours is the whole update with drawing and augmenting the batch, plain gets its four views ready-made, so that
                    its data workers cost nothing
    pictures        CPU time on one core from the file (plain) or the cache (ours) to the normalised views
    evaluation      from unit embeddings to the metrics: both at the size of CUHK-PEDES' test split and at 8,000 x 8,000, ours
                    alone at the size of ICFG-PEDES' test split; plain is measured again with freed memory kept, as in our trainer

Each evaluation runs in its own process, one at a time: the argsort of 8,000 x 8,000 with freed memory kept takes 5.2 GB.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from floor import machine, step_bytes, step_operations
from measuring import Measurement, apart, in_turn, rates, ratios, timed
from plain import PlainReport, PlainTrainer, collate, metrics_by_argsort
from results import Benchmark, run_alone
from subjects import MEAN_TOKENS, captions_of, draw_people, published_shape, random_model, toy_shape

from tbps.data import Batch, ImageCache, PersonDataset, Pictures
from tbps.evaluation import Report, retrieval_metrics
from tbps.machine import keep_freed_memory
from tbps.model import ModelShape, PersonModel
from tbps.seeding import generator
from tbps.study.recipes import simplified_tbps_clip, tbps_clip
from tbps.training.log import NoLog
from tbps.training.observer import Silent
from tbps.training.run import Run
from tbps.training.settings import TrainSettings
from tbps.training.views import draw_views

VIEWS = 4
PEOPLE = 1000  # in the test splits of both CUHK-PEDES and ICFG-PEDES
EPOCHS = 5


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the comparison.

    `batch`: pairs per step; `pictures`: images per pass; `galleries`: (queries, images) evaluated by both; `alone`: (queries,
    images) evaluated by ours only.
    """

    shape: ModelShape
    batch: int
    pictures: int
    galleries: tuple[tuple[int, int], ...]
    alone: tuple[int, int]
    matrix: int


FULL = Sizes(published_shape(32), 8, 64, ((6156, 3074), (8000, 8000)), (19_848, 19_848), 1024)
TOY = Sizes(toy_shape(), 4, 4, ((60, 40),), (80, 80), 64)


def measure(toy: bool, runs: int) -> Benchmark:
    sizes = TOY if toy else FULL
    rows: list[Measurement] = []
    with tempfile.TemporaryDirectory() as temporary:
        dataset = draw_people(Path(temporary) / "people", max(sizes.batch, sizes.pictures) // 2, 2)
        model = random_model(sizes.shape, captions_of(dataset))
        settings = tbps_clip().override({"batch_size": sizes.batch, "image_augmentation.with_replacement": True})
        rows += steps(settings, model, dataset, sizes, runs)
        rows += pictures(settings, model, dataset, sizes.pictures, runs)
    for queries, images in sizes.galleries:
        rows += evaluation(queries, images, runs)
    rows += evaluation_alone(*sizes.alone, runs)
    return Benchmark("side by side", rows, {"batch": sizes.batch, "threads": torch.get_num_threads(), "runs": runs})


def steps(settings: TrainSettings, model: PersonModel, dataset: PersonDataset, sizes: Sizes, runs: int) -> list[Measurement]:
    """Measures one update of both trainers in both precisions, and the ratio of the lower bound to our time."""
    ways: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float32", "bfloat16"):
            asked = settings.override({"precision": precision})
            run = Run(asked, copied(model), dataset, Path(folder) / precision, Silent())
            plain = PlainTrainer(asked, copied(model), dataset, workers=0)
            ways[f"ours, {precision}"] = partial(run.update, NoLog())
            ways[f"plain, {precision}"] = partial(plain.update, next(iter(plain.batches())))
        spent = in_turn(ways, runs)
    found, _ = machine("cpu", sizes.matrix, runs)
    operations = step_operations(sizes.shape, sizes.batch, VIEWS, MEAN_TOKENS)
    moved = step_bytes(sizes.shape, sum(p.numel() for p in model.clip.parameters()), sizes.batch, VIEWS)
    rows = [Measurement(f"training step, {name}", "s", times) for name, times in spent.items()]
    for above, below in (("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")):
        what = f"training step, ours in {above} / plain in {below}"
        rows.append(ratios(what, spent[f"ours, {above}"], spent[f"plain, {below}"]))
    for precision in ("float32", "bfloat16"):
        least = found.seconds(operations, moved, precision)
        shares = tuple(least / each for each in spent[f"ours, {precision}"])
        rows.append(Measurement(f"training step, floor / ours, {precision}", "ratio", shares))
    return rows


def pictures(settings: TrainSettings, model: PersonModel, dataset: PersonDataset, count: int, runs: int) -> list[Measurement]:
    """Measures image preparation on one core.

    Plain decodes the file every time and computes four views; ours decodes once and augments the recipe's views from the cache.
    """
    threads, train = torch.get_num_threads(), dataset.split("train")
    spec, vocabulary = model.spec, model.clip.config.text_config.vocab_size
    plain = PlainTrainer(settings, copied(model), dataset, workers=0).pairs
    pairs = [row for row, pair in enumerate(train.pairs()) if pair.caption == 0][:count]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cached = ImageCache.open(train, spec, folder, workers=1).images
        shown = tuple(Pictures.open(train, spec, folder, workers=1)[row] for row in range(count))

        def ours(recipe: TrainSettings) -> None:
            images = torch.from_numpy(np.ascontiguousarray(cached[:count].transpose(0, 3, 1, 2)))
            no_identity = torch.zeros(count, dtype=torch.int64)
            draw_views(Batch(images, no_identity[:, None], no_identity, pictures=shown), recipe, spec, vocabulary, step=0)

        def decode() -> None:
            for file in folder.iterdir():
                file.unlink()
            ImageCache.open(train, spec, folder, workers=1)
            Pictures.open(train, spec, folder, workers=1)

        simple = settings.override({"losses": simplified_tbps_clip().losses.model_dump()})
        ways = {
            "plain": lambda: collate([plain[row] for row in pairs]),
            "full": partial(ours, settings),
            "simplified": partial(ours, simple),
            "decode": decode,
        }
        torch.set_num_threads(1)
        keep_freed_memory()  # as a training run does; the plain trainer has it too from here on
        try:
            spent = in_turn(ways, runs, partial(timed, clock=time.process_time))
        finally:
            torch.set_num_threads(threads)
    return picture_rows(spent, count, train)


def picture_rows(spent: Mapping[str, Sequence[float]], count: int, train: PersonDataset) -> list[Measurement]:
    """Returns rates of image preparation; for ours, the time of decoding once is divided by the number of uses in a run."""
    once = [each * count / len(train.images) for each in spent["decode"]]
    uses = EPOCHS * len(train.pairs()) / len(train.images)
    unit = "pictures a second and core"
    rows = [
        rates("pictures, plain: decoded, resized, four views", unit, count, spent["plain"]),
        rates("pictures, ours: decoded and resized into the cache", unit, count, once),
    ]
    for recipe, views in (("full", "four views"), ("simplified", "one view")):
        whole = [mine + first / uses for mine, first in zip(spent[recipe], once, strict=True)]
        what = f"pictures, ours, {recipe} recipe: {views}, and decoding spread over {uses:.0f} uses"
        rows += [
            rates(what, unit, count, whole),
            ratios(f"pictures a second, ours / plain, {recipe} recipe", spent["plain"], whole),
        ]
    return rows


def evaluation(queries: int, images: int, runs: int) -> list[Measurement]:
    """Measures time and memory of both evaluations, each in its own process. Both must report the same metrics."""
    sides = {"plain": by_argsort, "plain, freed memory kept": by_argsort_with_kept_memory, "ours": by_counting}
    found = apart({name: partial(side, queries, images) for name, side in sides.items()}, runs)
    plain, ours = found["plain"].outcome, found["ours"].outcome
    pairs = zip((plain.r1, plain.map, plain.minp), (ours.r1, ours.map, ours.minp), strict=True)
    assert all(abs(a - b) < 0.01 for a, b in pairs), f"the metrics of both trainers differ: {plain} and {ours}"
    spent = {name: each.seconds for name, each in found.items()}
    taken = {name: each.megabytes for name, each in found.items()}
    size = f"evaluation, {queries:,} x {images:,}"
    return [
        *(Measurement(f"{size}, {name}", "s", times) for name, times in spent.items()),
        ratios(f"{size}, time, ours / plain", spent["ours"], spent["plain"]),
        ratios(f"{size}, time, ours / plain, freed memory kept", spent["ours"], spent["plain, freed memory kept"]),
        *(Measurement(f"{size}, {name}, memory", "MB", most) for name, most in taken.items()),
        ratios(f"{size}, memory, ours / plain", taken["ours"], taken["plain"]),
    ]


def evaluation_alone(queries: int, images: int, runs: int) -> list[Measurement]:
    """Measures time and memory of ours alone: a full argsort would hold several numbers for each of 394 million pairs."""
    size = f"evaluation, {queries:,} x {images:,}, ours"
    ours = apart({"ours": partial(by_counting, queries, images)}, runs)["ours"]
    return [Measurement(size, "s", ours.seconds), Measurement(f"{size}, memory", "MB", ours.megabytes)]


def by_argsort(queries: int, images: int) -> PlainReport:
    """Evaluates `embeddings` by a full argsort."""
    return metrics_by_argsort(*map(torch.from_numpy, embeddings(queries, images, min(PEOPLE, images // 2))))


def by_argsort_with_kept_memory(queries: int, images: int) -> PlainReport:
    """Evaluates `embeddings` by a full argsort in a process that keeps freed memory, as our trainer does."""
    keep_freed_memory()
    return by_argsort(queries, images)


def by_counting(queries: int, images: int) -> Report:
    """Evaluates `embeddings` with `tbps`."""
    return retrieval_metrics(*embeddings(queries, images, min(PEOPLE, images // 2)))


@lru_cache(maxsize=1)
def embeddings(queries: int, images: int, people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws unit embeddings (text, image) of 512 dimensions around one centre per person, and the identity of each row."""
    rng = generator(0, "benchmark", "evaluation", queries, images)
    text_ids, image_ids = np.arange(queries) % people, np.arange(images) % people
    centres = rng.standard_normal((people, 512), dtype=np.float32)
    sides = []
    for ids in (text_ids, image_ids):
        rows = centres[ids] + 4 * rng.standard_normal((len(ids), 512), dtype=np.float32)
        sides.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return sides[0], sides[1], text_ids, image_ids


def copied(model: PersonModel) -> PersonModel:
    """Copies a model for training."""
    return PersonModel(copy.deepcopy(model.clip), model.tokenizer, model.spec, model.name)


if __name__ == "__main__":
    run_alone(measure, __doc__)
