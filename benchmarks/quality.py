"""Accuracy of the fast trainer against the plain one: the same recipe on the same mannequins, Rank-1 of three seeds each.

    python benchmarks/quality.py [--toy] [--seeds 3]

Both start from the same random weights and see the same pairs in the same order, with the same losses (N-ITC with soft labels,
MVS-I, SS-I, C-ITC), weak and strong views, text augmentation, optimizers (AdamW and Muon), schedule, precision and number of
updates; both are evaluated after the last update on the same unseen people. They differ as listed in `plain.py`, and in their
random draws: two runs with the same seed have the same data and initial weights, but different augmentation and dropout.
"""

import argparse
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from measuring import Measurement, say
from memory import TooLittleMemory, within_limit
from plain import train as train_plainly
from results import FOLDER, Benchmark, keep
from subjects import draw_people

from tbps.data import ImageCache, PersonDataset, embed_split, identities
from tbps.evaluation import Embeddings, score
from tbps.study.recipes import mannequin_minute
from tbps.training.log import NoLog
from tbps.training.observer import Silent
from tbps.training.run import Run
from tbps.training.settings import TrainSettings
from tbps.training.start import start_model

RECIPE = {
    "image_augmentation.enabled": True,
    "image_augmentation.with_replacement": True,
    "losses.n_itc.soft_label": 0.5,
    "losses.mvs.views": "image",
    "losses.ss.weight": 0.4,
    "losses.c_itc.weight": 0.1,
}
TOY = {
    "batch_size": 8,
    "schedule.epochs": 1,
    "shape.image": {"width": 32, "layers": 1, "heads": 2},
    "shape.text": {"width": 32, "layers": 1, "heads": 2},
}
PEOPLE, UNSEEN = 1000, 200


def measure(toy: bool, seeds: int) -> Benchmark:
    settings = mannequin_minute().override(RECIPE | (TOY if toy else {}))
    people, unseen = (8, 4) if toy else (PEOPLE, UNSEEN)
    found: dict[str, list[float]] = {"fast": [], "plain": []}
    spent: dict[str, list[float]] = {"fast": [], "plain": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dataset = draw_people(folder / "people", people, 4, held_out=unseen)
        for seed in range(seeds):
            for name, train in (("fast", train_fast), ("plain", train_plain)):
                started = time.perf_counter()
                rank_1 = train(settings.override({"seed": seed}), dataset, folder / f"{name}-{seed}")
                spent[name].append(time.perf_counter() - started)
                found[name].append(rank_1)
                say(f"{name}, seed {seed}: Rank-1 {rank_1:.2f} % after {spent[name][-1]:.0f} s")
    rows = [Measurement(f"Rank-1 after the last update, {name}", "%", tuple(each)) for name, each in found.items()]
    rows += [Measurement(f"the whole run, {name}", "s", tuple(each)) for name, each in spent.items()]
    return Benchmark("quality", rows, facts(settings, found, unseen))


def facts(settings: TrainSettings, found: dict[str, list[float]], unseen: int) -> dict[str, object]:
    """Returns settings, means and standard deviations."""
    known: dict[str, object] = {"settings": settings.fingerprint(), "unseen people": unseen}
    for name, each in found.items():
        known[f"{name} mean"] = round(statistics.mean(each), 2)
        known[f"{name} deviation"] = round(statistics.stdev(each), 2) if len(each) > 1 else None
    return known


def train_fast(settings: TrainSettings, dataset: PersonDataset, folder: Path) -> float:
    """Returns Rank-1 on the test split after training with `tbps`."""
    model = start_model(settings, dataset, None, "cpu")
    run = Run(settings, model, dataset, folder, Silent())
    while run.state.step < run.steps:
        run.update(NoLog())
    model.clip.eval()
    test = dataset.split("test")
    images = ImageCache.open(test, model.spec, folder / "cache").images
    rows = embed_split(test, iter([images]), model.encode_arrays, model.encode_texts)
    return score(Embeddings(*rows, *identities(test), model="", source="")).model.r1


def train_plain(settings: TrainSettings, dataset: PersonDataset, folder: Path) -> float:
    """Returns Rank-1 of the plain trainer with two workers; `folder` is unused."""
    return train_plainly(settings, start_model(settings, dataset, None, "cpu"), dataset, workers=2).r1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that the benchmark runs")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds of each trainer")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder for the JSON file and the table")
    given = parser.parse_args()
    began = datetime.now()
    try:
        with within_limit("quality", given.toy):
            benchmark = measure(given.toy, given.seeds)
    except TooLittleMemory as error:
        sys.exit(f"error: {error}")
    file = keep([benchmark], given.toy, began, given.folder, "quality")
    print(f"\n{file.with_suffix('.md').read_text(encoding='utf-8')}\n{file}")
