"""Measured cost of a recipe: parameters, floating-point operations, training and test time, peak memory (paper: table 9)."""

import resource
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, final

import torch
from torch.utils.flop_counter import FlopCounterMode

from tbps.data.embedding import decoded, embed_split, identities
from tbps.data.records import PersonDataset
from tbps.evaluation.metrics import retrieval_metrics
from tbps.model.bundle import load
from tbps.study.work.operations import encode_flops
from tbps.study.work.training import train_in
from tbps.study.work.work import Place, Work, WorkOutcome
from tbps.training.log import NoLog
from tbps.training.run import Run
from tbps.training.settings import TrainSettings
from tbps.training.start import start_model

_WARM_UP, _TIMES = 5, 30


@final
class Costing(Work):
    """Train with a recipe, in a process of its own, and measure the cost.

    Values in addition to those of `Training`: `encode_flops`, operations to embed one image and one caption of full length;
    `train_flops`, operations of one update per pair, with the backward pass and all views. A multiplication and an addition count
    as two operations.

    Measured: `train_seconds`, time of all updates; `test_seconds`, time to embed and score the test split; `encode_seconds`, time
    to embed one image and its caption on the CPU; `peak_bytes`, peak memory of the GPU, or of the whole process on a CPU.
    """

    kind: Literal["costing"] = "costing"
    """Name of the kind."""
    alone: ClassVar[bool] = True

    def run(self, place: Place) -> WorkOutcome | None:
        """`Work.run`."""
        dataset = self.dataset(place.dataset)
        values = _count(self.train, dataset, place)
        trained = train_in(place, self.train, dataset)
        if trained is None:
            return None
        peak = peak_bytes(place.device)
        split = dataset.split(trained.split)
        measured = {
            **trained.measured,
            "test_seconds": _test_seconds(place.run / "best", split, place.device),
            "encode_seconds": _encode_seconds(place.run / "best", split),
            "peak_bytes": peak,
        }
        shutil.rmtree(place.run / "checkpoints", ignore_errors=True)
        return replace(trained, values={**trained.values, **values}, measured=measured)


def peak_bytes(device: str) -> float:
    """Peak memory so far in bytes: of tensors on a GPU, of this process on a CPU."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _count(settings: TrainSettings, dataset: PersonDataset, place: Place) -> dict[str, float]:
    """Count the operations of one real update, in a temporary folder."""
    model = start_model(settings, dataset, place.model, place.device)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(settings, model, dataset, Path(folder), place.observer)
        with FlopCounterMode(display=False) as counter:
            run.update(NoLog())
    return {
        "encode_flops": sum(encode_flops(run.model.clip.config, model.spec.height, model.spec.width)),
        "train_flops": counter.get_total_flops() / settings.batch_size,
    }


def _test_seconds(folder: Path, split: PersonDataset, device: str) -> float:
    model = load(folder, device)
    started = time.monotonic()
    text, image = embed_split(split, decoded(split.images, model.spec), model.encode_arrays, model.encode_texts)
    retrieval_metrics(text, image, *identities(split))
    return time.monotonic() - started


def _encode_seconds(folder: Path, split: PersonDataset) -> float:
    """Median time to embed the split's first image and its caption on the CPU."""
    model = load(folder, "cpu")
    arrays, caption = next(decoded(split.images[:1], model.spec)), split.images[0].captions[:1]
    times = []
    for _ in range(_WARM_UP + _TIMES):
        started = time.perf_counter()
        model.encode_arrays(arrays)
        model.encode_texts(caption)
        times.append(time.perf_counter() - started)
    return statistics.median(times[_WARM_UP:])
