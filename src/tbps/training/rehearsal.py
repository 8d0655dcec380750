"""Dry run: estimate updates, time and memory of a run from three real updates on part of the data."""

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from tbps.data.batches import epoch_batches
from tbps.data.records import PersonDataset
from tbps.model.bundle import PersonModel
from tbps.training.log import NoLog
from tbps.training.observer import Observer
from tbps.training.run import Run
from tbps.training.settings import TrainSettings

_UPDATES = 3


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Expected cost of a run, without validation and division of pairs.

    `steps`: updates of the run. `seconds_per_step`: median of three updates. `peak_bytes`: peak memory of the GPU, or of the
    process on a CPU. `trained`: number of trainable parameters among all `parameters`.
    """

    steps_per_epoch: int
    steps: int
    seconds_per_step: float
    peak_bytes: int
    trained: int
    parameters: int

    @property
    def seconds(self) -> float:
        """Seconds of all updates."""
        return self.steps * self.seconds_per_step


def rehearse(settings: TrainSettings, model: PersonModel, dataset: PersonDataset, observer: Observer) -> Rehearsal:
    """Run three updates after one warm-up update, on as many images as they need; no file remains.

    The updates change `model`; do not use it afterwards. Raises the errors of `tbps.training.trainer.train`.
    """
    train = dataset.split("train")
    steps_per_epoch = len(epoch_batches(settings.seed, 0, len(train.pairs()), settings.batch_size))
    with tempfile.TemporaryDirectory() as folder:
        some = some_of(dataset, settings.batch_size * (1 + _UPDATES))
        run = Run(settings, model, some, Path(folder), observer, cache=Path(folder))
        if model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(model.device)
        times = []
        for _ in range(1 + _UPDATES):
            started = time.monotonic()
            run.update(NoLog())
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            times.append(time.monotonic() - started)
        run.read_losses()
    return Rehearsal(
        steps_per_epoch=steps_per_epoch,
        steps=steps_per_epoch * settings.schedule.epochs,
        seconds_per_step=sorted(times[1:])[_UPDATES // 2],
        peak_bytes=_peak(model.device),
        trained=run.trained,
        parameters=run.parameters,
    )


def some_of(dataset: PersonDataset, images: int) -> PersonDataset:
    """Select about `images` training images, evenly spread, and one validation image. Each image has at least one pair."""
    train, val = dataset.split("train").images, dataset.split("val").images
    return PersonDataset(dataset.name, dataset.root, (*train[:: max(1, len(train) // images)], *val[:1]))


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
