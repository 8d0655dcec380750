"""The training loop: settings, model and data in; a run folder with log, checkpoints, best model and report out.

settings.json   what was asked for         checkpoints/   the newest two, for a restart
log.jsonl, tensorboard/                    best/          the model folder of the best epoch by validation Rank-1
cache/          decoded images             report.json, report.png
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, final

import numpy as np
import torch
from pydantic import Field

from tbps.config import Settings
from tbps.data.augment_image import ImageAugmentation, augment_images
from tbps.data.augment_text import TextAugmentation
from tbps.data.batches import Batches
from tbps.data.cache import ImageCache
from tbps.data.records import Batch, PersonDataset
from tbps.errors import DataError, SettingsError
from tbps.evaluation.embed import embed_split
from tbps.evaluation.retrieval import Standing, embeddings_of, score
from tbps.model.bundle import PersonModel, load_weights
from tbps.model.clip import (
    ModelShape,
    choose_attention,
    image_features,
    lock_patch_projection,
    set_text_attention_dropout,
    text_features_in_parts,
)
from tbps.model.tokens import tokenise
from tbps.preprocess.image import ImageSpec, normalise
from tbps.seeding import entropy, torch_generator
from tbps.storage import make_folder, write_text
from tbps.training.checkpoint import restore_latest, save_checkpoint
from tbps.training.log import RunLog, draw_curves
from tbps.training.objective import Features, Losses, LossSettings, objective
from tbps.training.optimizer import OptimizerSettings, optimizers
from tbps.training.schedule import ScheduleSettings, learning_rate, soft_label_share
from tbps.training.state import EpochResult, TrainState

_LARGEST_LOG_SCALE = 4.605170185988092  # ln 100: the temperature's cap
_LOG_STEPS = 10
_EMBED_BATCH = 128


class TrainSettings(Settings):
    """Everything that decides a run besides data and start weights.

    `shape` builds a model from random weights (None: a start model is given); `image` overrides the start model's input size
    and pixel normalisation. `text_parts`: captions are encoded in so many runs by length, which changes the speed only.
    `compile_image_tower` pays where a run takes many minutes.
    """

    seed: int = 0
    batch_size: int = Field(320, ge=1)
    shape: ModelShape | None = None
    image: ImageSpec | None = None
    image_augmentation: ImageAugmentation = ImageAugmentation()
    text_augmentation: TextAugmentation = TextAugmentation()
    text_attention_dropout: float = Field(0.05, ge=0, lt=1)
    lock_patch_projection: bool = True
    losses: LossSettings = LossSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    precision: Literal["float32", "bfloat16"] = "float32"
    text_parts: int = Field(4, ge=1)
    compile_image_tower: bool = False
    checkpoint_steps: int = Field(200, ge=1)


@dataclass(frozen=True, slots=True)
class StepReport:
    """One update as the user sees it; `rate` is the learning rate, `pairs_per_second` the throughput since the last report."""

    epoch: int
    step: int
    steps: int
    loss: float
    rate: float
    pairs_per_second: float


class Observer(Protocol):
    """Who watches a run: the command line draws it, a test records it."""

    def on_cache(self, done: int, total: int) -> None: ...
    def on_step(self, report: StepReport) -> None: ...
    def on_epoch(self, result: EpochResult) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: `finished`, or stopped with a checkpoint; `standing` is the best model on the test split, if any."""

    finished: bool
    step: int
    best: EpochResult | None
    standing: Standing | None


def train(
    settings: TrainSettings,
    model: PersonModel,
    dataset: PersonDataset,
    folder: Path,
    observer: Observer,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Trains `model` on the train split, validates every epoch, and resumes from the newest checkpoint in `folder`.

    `stop` is asked after every update; once true, a checkpoint is written and the run returns unfinished. Raises DataError
    when a split is missing, SettingsError when `folder` holds another run, StorageError when it cannot be written.
    """
    _claim(folder, settings)
    run = _Run(settings, model, dataset, folder, observer)
    with RunLog(folder, run.state.step) as log:
        while run.state.step < run.steps:
            run.update(log)
            ended = run.state.step % run.steps_per_epoch == 0
            if ended:
                run.validate(log)
            stopped = stop()
            if ended or stopped or run.state.step % settings.checkpoint_steps == 0:
                save_checkpoint(folder / "checkpoints", run.state, settings.fingerprint())
            if stopped and run.state.step < run.steps:
                return Outcome(False, run.state.step, run.state.best, None)
    return run.report()


def _claim(folder: Path, settings: TrainSettings) -> None:
    file = make_folder(folder) / "settings.json"
    wanted = settings.model_dump_json(indent=2) + "\n"
    if file.exists() and file.read_text(encoding="utf-8") != wanted:
        raise SettingsError(f"{folder} holds a run with other settings; give another --out, or the settings in {file}")
    write_text(file, wanted)


@final
class _Run:
    """The moving parts of one run."""

    def __init__(
        self, settings: TrainSettings, model: PersonModel, dataset: PersonDataset, folder: Path, observer: Observer
    ) -> None:
        self.settings, self.model, self.dataset, self.folder, self.observer = settings, model, dataset, folder, observer
        self.splits = {name: dataset.split(name) for name in ("train", "val", "test")}
        for name in ("train", "val"):
            if not self.splits[name].images:
                raise DataError(f"{dataset.name} at {dataset.root} has no {name} split; training needs one to learn and choose by")
        cache = partial(ImageCache.open, spec=model.spec, folder=folder / "cache", on_progress=observer.on_cache)
        self.caches = {name: cache(split) for name, split in self.splits.items() if split.images}
        self.batches = Batches(
            dataset=self.splits["train"],
            images=self.caches["train"].images,
            tokenise=lambda captions: tokenise(model.tokenizer, captions, model.context_length),
            text=settings.text_augmentation,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        self.steps_per_epoch = self.batches.steps
        self.steps = self.steps_per_epoch * settings.schedule.epochs
        choose_attention(model.clip)
        set_text_attention_dropout(model.clip, settings.text_attention_dropout)
        if settings.lock_patch_projection:
            lock_patch_projection(model.clip)
        if settings.compile_image_tower:
            model.clip.vision_model.compile()
        self.state = TrainState(model.clip, optimizers(model.clip, settings.optimizer))
        restore_latest(folder / "checkpoints", self.state, settings.fingerprint())
        self._stream: Iterator[Batch] = iter(())
        self._clock, self._clock_step = time.monotonic(), self.state.step

    def update(self, log: RunLog) -> None:
        """One optimizer step on the next batch."""
        step, epoch = self.state.step, self.state.step // self.steps_per_epoch
        batch = next(self._stream, None)
        if batch is None:
            self._stream = self.batches.epoch(epoch, start=step % self.steps_per_epoch)
            batch = next(self._stream)
        rate = learning_rate(step, self.steps_per_epoch, self.settings.schedule)
        for optimizer in self.state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
        losses = self._losses(batch, step)
        torch.autograd.backward(losses.total)
        if self.settings.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.clip.parameters(), self.settings.optimizer.clip_norm)
        for optimizer in self.state.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.model.clip.logit_scale.clamp_(max=_LARGEST_LOG_SCALE)
        if step % self.steps_per_epoch == 0:
            self.state.loss_sum = 0.0
        self.state.step = step + 1
        self._record(losses, rate, epoch, log)

    def _losses(self, batch: Batch, step: int) -> Losses:
        settings, clip, device = self.settings, self.model.clip, self.model.device
        clip.train()
        generator = torch_generator(settings.seed, "augmentation", step)  # on the CPU: few numbers, no waiting for the device
        pixels = normalise(augment_images(batch.images.to(device), settings.image_augmentation, generator), self.model.spec)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(entropy(settings.seed, "dropout", step) & (2**63 - 1))
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                image = image_features(clip, pixels)
                text = text_features_in_parts(clip, batch.tokens, settings.text_parts)
        alpha = soft_label_share(step, self.steps_per_epoch, settings.losses.soft_label)
        features = Features(image, text, batch.identities.to(device))
        return objective(features, clip.logit_scale.exp(), alpha, settings.losses)

    def _record(self, losses: Losses, rate: float, epoch: int, log: RunLog) -> None:
        loss = float(losses.total.detach())
        if not np.isfinite(loss):
            peak = self.settings.schedule.peak_rate
            raise SettingsError(f"the loss is {loss} at update {self.state.step}; lower schedule.peak_rate (now {peak})")
        self.state.loss_sum += loss
        if self.state.step % _LOG_STEPS and self.state.step % self.steps_per_epoch:
            return
        now = time.monotonic()
        speed = (self.state.step - self._clock_step) * self.settings.batch_size / max(1e-9, now - self._clock)
        self._clock, self._clock_step = now, self.state.step
        terms = {name: float(term) for name, term in losses.terms.items()}
        scale = float(self.model.clip.logit_scale.detach().exp())
        log.write("train", self.state.step, {"loss": loss, **terms, "rate": rate, "scale": scale, "pairs_per_second": speed})
        self.observer.on_step(StepReport(epoch, self.state.step, self.steps, loss, rate, speed))

    def validate(self, log: RunLog) -> None:
        """Metrics on the val split; the best model so far is saved."""
        started = time.monotonic()
        report = self._standing("val", final=False).model
        epoch = self.state.step // self.steps_per_epoch
        loss = self.state.loss_sum / self.steps_per_epoch
        result = EpochResult(epoch, self.state.step, loss, report.r1, report.r5, report.r10, report.map, report.minp)
        self.state.history.append(result)
        if self.state.best == result:
            PersonModel(self.model.clip, self.model.tokenizer, self.model.spec, self.model.name).save(self.folder / "best")
        log.write("val", self.state.step, {k: v for k, v in asdict(result).items() if k != "step"})
        self.observer.on_epoch(result)
        self._clock += time.monotonic() - started

    def _standing(self, name: str, final: bool) -> Standing:
        split, images = self.splits[name], self.caches[name].images
        self.model.clip.eval()
        arrays = (images[start : start + _EMBED_BATCH] for start in range(0, len(images), _EMBED_BATCH))
        with torch.compiler.set_stance("force_eager"):
            rows = embed_split(split, arrays, self.model.encode_arrays, self.model.encode_texts)
        return score(embeddings_of(split, rows, model=self.model.name, source=f"{split.name} {name}"), split if final else None)

    def report(self) -> Outcome:
        """Scores the best model once on the test split and writes report.json and report.png."""
        best = self.state.best
        split = "test" if self.splits["test"].images else "val"
        load_weights(self.folder / "best", self.model.clip)
        standing = self._standing(split, final=True)
        facts = {
            "settings": self.settings.fingerprint(),
            "data": self.dataset.name,
            "updates": self.state.step,
            "best_epoch": asdict(best) if best else None,
            "history": [asdict(result) for result in self.state.history],
            "split": split,
            "model": standing.model.as_dict(),
            "chance": standing.chance.as_dict(),
            "ceiling": standing.ceiling.as_dict() if standing.ceiling else None,
        }
        write_text(self.folder / "report.json", json.dumps(facts, indent=2) + "\n")
        draw_curves(self.folder / "log.jsonl", self.folder / "report.png", f"{self.dataset.name}: {self.state.step:,} updates")
        return Outcome(True, self.state.step, best, standing)
