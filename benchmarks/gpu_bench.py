"""What the parts of `gpu.py` share: sizes, a data set with CUHK-PEDES' numbers, runs on the device, memory."""

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
from tbps.training.settings import TrainSettings
from tbps.training.trainer import Run


@dataclass(frozen=True, slots=True)
class GpuSizes:
    """`train`: images, captions, people; `held_out`: images and captions of val, then of test; `warm`: steps that do not count."""

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
    """What the parts share, and what they found so far."""

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
        """Seconds of the budget."""
        return self.ends - time.monotonic()

    def settings(self, recipe: str, **changes: Any) -> TrainSettings:
        """A recipe at this size, in bfloat16."""
        made = {"full": tbps_clip, "simplified": simplified_tbps_clip}[recipe]()
        return made.override({"precision": "bfloat16", "batch_size": self.sizes.batch, "micro_batch": self.micro} | changes)

    def small(self, batch: int) -> PersonDataset:
        """Enough training images for one epoch of some steps, and one to validate on."""
        train, val = self.dataset.split("train").images, self.dataset.split("val").images
        return PersonDataset(self.dataset.name, self.dataset.root, (*train[: batch * 4], *val[:1]))

    def copied(self) -> PersonModel:
        """The same weights on the device, to train on."""
        return PersonModel(copy.deepcopy(self.model.clip), self.model.tokenizer, self.model.spec, "random").to(self.device)

    def note(self, text: str) -> None:
        """A remark for the terminal and the file."""
        self.notes.append(text)
        say(text)

    def fits(self, work: Callable[[], object], what: str) -> bool:
        """Does `work`; False, noted, where it needs more memory than there is. Frees what was used before it."""
        free(self.device)
        try:
            work()
        except torch.OutOfMemoryError:
            self.note(f"{what}: does not fit the memory")
            return False
        return True

    @contextmanager
    def run(self, settings: TrainSettings, dataset: PersonDataset) -> Iterator[Run]:
        """A run on a copy of the weights with its pictures on the device."""
        free(self.device)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            (Path(folder) / "cache").symlink_to(self.folder / "cache")
            run = Run(settings, self.copied(), dataset, Path(folder), Silent())
            run.batches = replace(run.batches, images=near(run.caches["train"].images, self.device))
            yield run

    def time_steps(self, run: Run) -> tuple[float, ...]:
        """Seconds of each of some updates."""
        for _ in range(self.sizes.warm):
            run.update(NoLog())
        return tuple(timed(lambda: run.update(NoLog()), device=self.device) for _ in range(self.sizes.steps))

    def keep_steps(self, what: str, times: tuple[float, ...], batch: int, recipe: str) -> None:
        """Rows of one kind of step: seconds, pairs a second, share of the matrix rate."""
        operations = step_operations(self.sizes.shape, batch, VIEWS[recipe], MEAN_TOKENS)
        self.rows += [Measurement(what, "s a step", times), rates(what, "pairs a second", batch, times)]
        if self.machine is not None:
            shares = tuple(operations / each / self.machine.bfloat16 for each in times)
            self.rows.append(Measurement(f"{what}: share of the measured bfloat16 rate", "ratio", shares))
        self.rows.append(Measurement(f"{what}: peak memory", "GB", (peak(self.device),)))

    def keep_updates_of_a_run(self, what: str, times: tuple[float, ...]) -> None:
        """What all updates of five epochs would take at the mean of these steps."""
        steps = EPOCHS * (self.sizes.train[1] // self.sizes.batch)
        seconds = steps * sum(times) / len(times)
        self.rows.append(Measurement(f"{what}: all {steps:,} updates, extrapolated from {len(times)} steps", "s", (seconds,)))


def repeated(drawn: PersonDataset, sizes: GpuSizes) -> PersonDataset:
    """A data set with the wanted numbers of images, captions and people, made of the drawn images over and over."""
    originals = drawn.split("train").images
    images, captions, people = sizes.train
    made = list(listed(originals, "train", images, captions, people))
    for name, (count, texts) in zip(("val", "test"), sizes.held_out, strict=True):
        made += listed(originals, name, count, texts, max(1, count // 3))
    return PersonDataset("mannequins", drawn.root, tuple(made))


def listed(originals: tuple[PersonImage, ...], split: str, images: int, captions: int, people: int) -> Iterator[PersonImage]:
    """Images of one split; the first few have a caption more than the others, so that their number comes out."""
    each, more = divmod(captions, images)
    for number, image in enumerate(islice(cycle(originals), images)):
        count = each + (number < more)
        texts, paraphrases = (tuple(islice(cycle(known), count)) for known in (image.captions, image.captions_bt))
        yield replace(image, split=split, identity=number % people, captions=texts, captions_bt=paraphrases, attributes={})


def free(device: torch.device) -> None:
    """Memory that is no longer used, and the mark of its peak."""
    import gc

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float:
    """GB since the last `free`; on a CPU of the whole process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
