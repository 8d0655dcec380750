"""State shared by the parts of `gpu.py`: sizes, a data set of the size of CUHK-PEDES, runs on the device, memory."""

import copy
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, final

import torch
from floor import Machine, step_operations
from measuring import Measurement, rates, say, timed
from subjects import MEAN_TOKENS, captions_of, draw_people, published_shape, random_model, toy_shape

from tbps.data import PersonDataset, PersonImage, near
from tbps.model import ModelShape, PersonModel
from tbps.study.recipes import simplified_tbps_clip, tbps_clip
from tbps.training.log import NoLog
from tbps.training.observer import Silent
from tbps.training.run import Run
from tbps.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class GpuSizes:
    """Sizes of the GPU benchmark.

    `train`: images, captions, people; `held_out`: images and captions of val, then of test; `warm`: warm-up steps.
    """

    shape: ModelShape
    train: tuple[int, int, int]
    held_out: tuple[tuple[int, int], tuple[int, int]]
    drawn: int
    batch: int
    micro: tuple[int, ...]
    curve: tuple[int, ...]
    steps: int
    warm: int
    matrix: int


FULL = GpuSizes(
    shape=published_shape(16),
    train=(34_054, 68_126, 11_003),
    held_out=((3078, 6158), (3074, 6156)),
    drawn=400,
    batch=320,
    micro=(80, 40),
    curve=(40, 80, 160, 320, 640),
    steps=12,
    warm=3,
    matrix=8192,
)
TOY = GpuSizes(toy_shape(), (16, 35, 5), ((4, 8), (4, 8)), 8, 8, (4, 2), (4, 8), 2, 1, 64)
VIEWS = {"full": 4, "simplified": 1}
EPOCHS = 5


@final
class Bench:
    """Data, model and results shared by the parts."""

    def __init__(self, device: str, sizes: GpuSizes, budget: float, folder: Path) -> None:
        self.device, self.sizes, self.folder = torch.device(device), sizes, folder
        (folder / "cache").mkdir()
        self.ends = time.monotonic() + budget
        self.dataset = repeated(draw_people(folder / "people", sizes.drawn // 2, 2), sizes)
        self.model = random_model(sizes.shape, captions_of(self.dataset)[:2000])
        self.rows: list[Measurement] = []
        self.notes: list[str] = []
        self.machine: Machine | None = None
        self.step_seconds = 0.0
        self.workers = len(os.sched_getaffinity(0)) if self.device.type == "cuda" else 0
        self.micro: int | None = None

    @property
    def left(self) -> float:
        """Remaining seconds of the budget."""
        return self.ends - time.monotonic()

    def settings(self, recipe: str, **changes: Any) -> TrainSettings:
        """Returns a recipe at this size, in bfloat16."""
        made = {"full": tbps_clip, "simplified": simplified_tbps_clip}[recipe]()
        return made.override({"precision": "bfloat16", "batch_size": self.sizes.batch, "micro_batch": self.micro} | changes)

    def small(self, batch: int) -> PersonDataset:
        """Returns a data set with enough training images for one epoch of a few steps, and one validation image."""
        train, val = self.dataset.split("train").images, self.dataset.split("val").images
        return PersonDataset(self.dataset.name, self.dataset.root, (*train[: batch * 4], *val[:1]))

    def copied(self) -> PersonModel:
        """Copies the model to the device, for training."""
        return PersonModel(copy.deepcopy(self.model.clip), self.model.tokenizer, self.model.spec, "random").to(self.device)

    def note(self, text: str) -> None:
        """Prints a remark and keeps it for the file."""
        self.notes.append(text)
        say(text)

    def fits(self, work: Callable[[], object], what: str) -> bool:
        """Frees unused memory and runs `work`; returns False, with a remark, if the device runs out of memory."""
        free(self.device)
        try:
            work()
        except torch.OutOfMemoryError:
            self.note(f"{what}: does not fit into memory")
            return False
        return True

    @contextmanager
    def run(self, settings: TrainSettings, dataset: PersonDataset) -> Iterator[Run]:
        """Opens a run on a copy of the weights, with its images on the device."""
        free(self.device)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            (Path(folder) / "cache").symlink_to(self.folder / "cache")
            run = Run(settings, self.copied(), dataset, Path(folder), Silent())
            run.batches = replace(run.batches, images=near(run.caches["train"].images, self.device))
            yield run

    def time_steps(self, run: Run) -> tuple[float, ...]:
        """Measures the seconds of several updates."""
        for _ in range(self.sizes.warm):
            run.update(NoLog())
        return tuple(timed(lambda: run.update(NoLog()), device=self.device) for _ in range(self.sizes.steps))

    def keep_steps(self, what: str, times: tuple[float, ...], batch: int, recipe: str) -> None:
        """Records steps of one recipe and batch size: seconds, pairs per second, share of the matrix rate, peak memory."""
        operations = step_operations(self.sizes.shape, batch, VIEWS[recipe], MEAN_TOKENS)
        self.rows += [Measurement(what, "s a step", times), rates(what, "pairs a second", batch, times)]
        if self.machine is not None:
            shares = tuple(operations / each / self.machine.bfloat16 for each in times)
            self.rows.append(Measurement(f"{what}: share of the measured bfloat16 rate", "ratio", shares))
        self.rows.append(Measurement(f"{what}: peak memory", "GB", (peak(self.device),)))

    def keep_updates_of_a_run(self, what: str, times: tuple[float, ...]) -> None:
        """Records the extrapolated time of all updates of five epochs."""
        steps = EPOCHS * (self.sizes.train[1] // self.sizes.batch)
        seconds = steps * sum(times) / len(times)
        self.rows.append(Measurement(f"{what}: all {steps:,} updates, extrapolated from {len(times)} steps", "s", (seconds,)))


def repeated(drawn: PersonDataset, sizes: GpuSizes) -> PersonDataset:
    """Builds a data set of the wanted numbers of images, captions and people by listing the drawn images repeatedly."""
    originals = drawn.split("train").images
    images, captions, people = sizes.train
    made = list(listed(originals, "train", images, captions, people))
    for name, (count, texts) in zip(("val", "test"), sizes.held_out, strict=True):
        made += listed(originals, name, count, texts, max(1, count // 3))
    return PersonDataset("mannequins", drawn.root, tuple(made))


def listed(originals: tuple[PersonImage, ...], split: str, images: int, captions: int, people: int) -> Iterator[PersonImage]:
    """Yields the images of one split; the first images get one caption more, so that the total of captions is exact."""
    each, more = divmod(captions, images)
    for number, image in enumerate(islice(cycle(originals), images)):
        count = each + (number < more)
        texts, paraphrases = (tuple(islice(cycle(known), count)) for known in (image.captions, image.captions_bt))
        yield replace(image, split=split, identity=number % people, captions=texts, captions_bt=paraphrases, attributes={})


def free(device: torch.device) -> None:
    """Frees unused memory and resets the peak."""
    import gc

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float:
    """Returns the peak memory in GB since the last `free`; on a CPU, of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
