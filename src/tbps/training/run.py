"""A training run: its data, model, optimizers and state, advanced one update at a time."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import final

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.profiler import record_function

from tbps.data.ahead import ahead
from tbps.data.batches import Batches
from tbps.data.cache import cache_folder, near
from tbps.data.embedding import identities
from tbps.data.records import Batch, PersonDataset
from tbps.distributed import average, barrier, mean, rank, world_size
from tbps.errors import SettingsError
from tbps.evaluation import Standing
from tbps.machine import keep_freed_memory
from tbps.model.activation import choose_activation
from tbps.model.bundle import PersonModel, load_weights
from tbps.model.clip import choose_attention, choose_products, set_text_attention_dropout
from tbps.model.lora import add_adapters, merge_adapters
from tbps.model.surgery import PruneSettings, pruned
from tbps.seeding import generator
from tbps.storage import write_text
from tbps.training.checkpoint import restore_latest, save_checkpoint
from tbps.training.division import consensus, embed_pairs, gaussian_mixture, losses_in_groups, of_first_process
from tbps.training.encode import PartEncoder
from tbps.training.gradient_cache import backward
from tbps.training.images import open_caches, open_pictures, splits_of
from tbps.training.learned import choose_what_learns, heads_of
from tbps.training.log import NoLog, RunLog, draw_curves
from tbps.training.objective import Labels, Losses, objective
from tbps.training.observer import Observer, StepReport
from tbps.training.optimizer import optimizers, update_together
from tbps.training.schedule import learning_rate, soft_label_share
from tbps.training.settings import TrainSettings
from tbps.training.state import EpochResult, TrainState
from tbps.training.validation import judged_model, standing_of
from tbps.training.views import draw_views
from tbps.transfer import send

LOG_STEPS = 10
"""Updates between two lines of the log."""
_LARGEST_LOG_SCALE = 4.605170185988092  # ln 100: upper bound of the log of the inverse temperature
_SMALLEST_LOSS_SCALE = 1.0  # a smaller scale would shrink gradients instead of enlarging them
_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a run. `finished`: false if it was stopped, with a checkpoint.

    `standing`: metrics of the best model on the test split (on val if there is none), on the first process. `trained`: number of
    trained parameters among all `parameters` of towers and heads.
    """

    finished: bool
    step: int
    best: EpochResult | None
    standing: Standing | None
    parameters: int
    trained: int


@final
class Run:
    """A training run: call `update` for every batch, `validate` after every epoch, and `report` at the end.

    The constructor opens the data, prepares the model and restores the newest checkpoint in `folder`.
    """

    def __init__(
        self,
        settings: TrainSettings,
        model: PersonModel,
        dataset: PersonDataset,
        folder: Path,
        observer: Observer,
        *,
        cache: Path | None = None,
    ) -> None:
        self.teacher = model.clip.eval().requires_grad_(False) if settings.losses.distill.weight > 0 else None
        if self.teacher is not None or settings.prune != PruneSettings():
            model = PersonModel(pruned(model.clip, settings.prune).requires_grad_(True), model.tokenizer, model.spec, model.name)
        self.settings, self.model, self.dataset, self.folder, self.observer = settings, model, dataset, folder, observer
        if model.device.type == "cpu":
            keep_freed_memory()
        if settings.division.enabled:
            gaussian_mixture()  # raises now, not after hours of training, if scikit-learn is missing
        self.splits = splits_of(dataset, settings)
        place = cache or cache_folder()
        self.caches = open_caches(self.splits, model.spec, settings, place, observer.on_cache)
        self.batches = Batches(
            dataset=self.splits["train"],
            images=near(self.caches["train"].images, model.device),
            tokenise=model.tokenise,
            text=settings.text_augmentation,
            batch_size=settings.batch_size,
            seed=settings.seed,
            rank=rank(),
            world_size=world_size(),
            second_text=settings.losses.second_text,
            mixing=settings.pair_augmentation,
            pictures=open_pictures(self.splits["train"], model.spec, settings, place, observer.on_cache),
        )
        self.steps_per_epoch = self.batches.steps
        self.steps = self.steps_per_epoch * settings.schedule.epochs
        self.known = torch.tensor(sorted({image.identity for image in self.splits["train"].images}), device=model.device)
        self.heads = heads_of(settings, model.dim, model.clip.config.text_config.vocab_size, len(self.known)).to(model.device)
        if settings.lora is not None:
            add_adapters(model.clip, settings.lora, settings.seed)
        self.learned = nn.ModuleDict({"clip": model.clip, "heads": self.heads})
        self.averaged = _averaged(model, settings.ema_decay)
        parts = self.learned if self.averaged is None else nn.ModuleDict({**self.learned, "averaged": self.averaged})
        scaler = GradScaler(model.device.type, enabled=settings.precision == "float16")
        self.state = TrainState(parts, self._prepare(), scaler)
        self.parameters = sum(parameter.numel() for parameter in self.learned.parameters())
        self.trained = sum(parameter.numel() for parameter in self.learned.parameters() if parameter.requires_grad)
        restore_latest(folder / "checkpoints", self.state, settings.fingerprint())
        self._stream: Iterator[Batch] = iter(())
        self._unread: list[tuple[int, torch.Tensor]] = []  # losses, still on the device, by update
        self._clock, self._clock_step = time.monotonic(), self.state.step

    def _prepare(self) -> tuple[torch.optim.Optimizer, ...]:
        """Set attention, activation and dropout of the towers, choose the trainable parameters, and make their optimizers."""
        settings, clip = self.settings, self.model.clip
        choose_attention(clip)
        choose_activation(clip)
        choose_products(tf32=settings.precision == "tf32")
        set_text_attention_dropout(clip, settings.text_attention_dropout)
        factors = choose_what_learns(clip, self.heads, settings)
        if settings.compile_image_tower:
            clip.vision_model.compile()
        return optimizers(self.learned, settings.optimizer, factors)

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield an epoch's batches on the device, prefetched for a GPU. On a CPU, prefetching would take cores from the updates."""
        device = self.model.device
        batches = (batch.to(device) for batch in self.batches.epoch(epoch, start))
        return ahead(batches, _AHEAD if device.type == "cuda" else 0)

    def update(self, log: "RunLog | NoLog") -> None:
        """Train on the next batch. In float16 the optimizer step is skipped if a gradient overflows; the schedule continues."""
        step, epoch = self.state.step, self.state.step // self.steps_per_epoch
        with record_function("tbps: data"):
            batch = next(self._stream, None)
            if batch is None:
                self._stream = self._batches(epoch, start=step % self.steps_per_epoch)
                batch = next(self._stream)
        if step % self.steps_per_epoch == 0:
            self._divide(epoch, log)
        rate = learning_rate(step, self.steps_per_epoch, self.settings.schedule)
        for optimizer in self.state.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
        losses = self._backward(batch, step)
        average([parameter.grad for parameter in self.learned.parameters() if parameter.grad is not None])
        with record_function("tbps: optimizer"):
            updated = update_together(self.state.optimizers, self.state.scaler, self.settings.optimizer.clip_norm)
        if self.model.clip.logit_scale.requires_grad:
            with torch.no_grad():
                self.model.clip.logit_scale.clamp_(max=_LARGEST_LOG_SCALE)
        if self.averaged is not None and updated:
            self.averaged.update_parameters(self.model.clip)
        if step % self.steps_per_epoch == 0:
            self.state.loss_sum, self.state.loss_count = 0.0, 0
        self.state.step = step + 1
        if not updated:
            self._record_skip(log)
        if updated or mean(losses.total.detach()).isfinite():  # only the gradients overflowed
            self._record(losses, rate, epoch, log)

    def _divide(self, epoch: int, log: "RunLog | NoLog") -> None:
        """Label the training pairs for this epoch, with the model's weights at its beginning."""
        division, settings = self.settings.division, self.settings
        if not division.enabled or epoch < division.warmup_epochs:
            return
        started = time.monotonic()
        split, stream = self.splits["train"], generator(settings.seed, "division", epoch)
        image, text = embed_pairs(self.model, split, self.caches["train"].images, self.observer.on_division)
        ids = torch.from_numpy(identities(split)[0]).to(image.device)
        losses = losses_in_groups(image, text, ids, settings.losses.tal.temperature, settings.batch_size, stream)
        found = of_first_process(consensus(losses, division.threshold, stream), image.device)
        self.state.believed = torch.from_numpy(found.believed)
        counts = {"clean": found.clean, "noisy": found.noisy, "disputed": found.disputed}
        # Logged under the next update: a run that is resumed before it drops this record, divides again and logs again.
        log.write("division", self.state.step + 1, counts | {"believed": int(found.believed.sum())})
        self._clock += time.monotonic() - started

    def _backward(self, batch: Batch, step: int) -> Losses:
        """Compute the losses of this process's pairs against all pairs, and accumulate their gradients in the parameters."""
        settings, clip = self.settings, self.model.clip
        clip.train()
        with record_function("tbps: augmentation"):
            vocabulary, context = clip.config.text_config.vocab_size, self.model.context_length
            views = draw_views(batch, settings, self.model.spec, vocabulary, step, context)
        pairs = len(views.image)
        size = min(pairs, settings.micro_batch or pairs)
        encoder = PartEncoder(clip, self.heads, views, settings, step, size, self.teacher)
        loss = partial(
            objective,
            labels=Labels(batch.identities, self.known, batch.mixed_with, self._weights(batch)),
            scale=clip.logit_scale.exp(),
            alpha=soft_label_share(step, self.steps_per_epoch, settings.losses.n_itc.soft_label),
            heads=self.heads,
            settings=settings.losses,
        )
        scaled = self.state.scaler.scale
        return backward(encoder, math.ceil(pairs / size), loss, settings.losses.mlm.weight, world_size(), scaled)

    def _weights(self, batch: Batch) -> torch.Tensor | None:
        if self.state.believed is None or batch.pairs is None:
            return None
        return send(self.state.believed[batch.pairs].float(), batch.images.device)

    def read_losses(self) -> None:
        """Add the losses since the last call, averaged over processes, to the state. All processes must call it.

        It synchronises with the device, so it is called only every tenth update and before anything is saved. Raises SettingsError
        that names the first update whose loss is not finite.
        """
        steps, losses = [step for step, _ in self._unread], [loss for _, loss in self._unread]
        self._unread = []
        for step, loss in zip(steps, mean(torch.stack(losses)).tolist() if losses else (), strict=True):
            if not math.isfinite(loss):
                peak = self.settings.schedule.peak_rate
                raise SettingsError(f"the loss is {loss} at update {step}; lower schedule.peak_rate (now {peak})")
            self.state.loss_sum += loss
            self.state.loss_count += 1

    def save(self) -> None:
        """Write a checkpoint, on the first process."""
        self.read_losses()
        if rank() == 0:
            save_checkpoint(self.folder / "checkpoints", self.state, self.settings.fingerprint())

    def _record_skip(self, log: "RunLog | NoLog") -> None:
        scale = self.state.scaler.get_scale()
        log.write("skipped", self.state.step, {"loss_scale": scale})
        if scale < _SMALLEST_LOSS_SCALE:
            peak = self.settings.schedule.peak_rate
            raise SettingsError(
                f"float16 overflows at update {self.state.step} whatever the loss scale (now {scale}); "
                f"give precision=bfloat16 or float32, or lower schedule.peak_rate (now {peak})"
            )

    def _record(self, losses: Losses, rate: float, epoch: int, log: "RunLog | NoLog") -> None:
        self._unread.append((self.state.step, losses.total.detach()))
        if self.state.step % LOG_STEPS and self.state.step % self.steps_per_epoch:
            return
        self.read_losses()
        values = mean(torch.stack([losses.total.detach(), *losses.terms.values()]).double()).tolist()
        loss, terms = values[0], dict(zip(losses.terms, values[1:], strict=True))
        now = time.monotonic()
        speed = (self.state.step - self._clock_step) * self.settings.batch_size / max(1e-9, now - self._clock)
        self._clock, self._clock_step = now, self.state.step
        scale = float(self.model.clip.logit_scale.detach().exp())
        facts = {"loss": loss, **terms, "rate": rate, "scale": scale, "pairs_per_second": speed}
        if self.state.scaler.is_enabled():
            facts["loss_scale"] = self.state.scaler.get_scale()
        log.write("train", self.state.step, facts)
        self.observer.on_step(StepReport(epoch, self.state.step, self.steps, loss, rate, speed))

    def validate(self, log: "RunLog | NoLog") -> None:
        """Score the model on val and save it if it is the best so far; without a val split, save the model of the last epoch."""
        started = time.monotonic()
        self.read_losses()
        if rank() > 0:
            barrier()
            return
        epoch = self.state.step // self.steps_per_epoch
        loss = self.state.loss_sum / self.state.loss_count if self.state.loss_count else math.nan
        if not self.splits["val"].images:
            self._keep_last(epoch, loss, log)
            barrier()
            return
        judged = self._judged()
        report = standing_of(judged, self.splits["val"], self.caches["val"], "val", with_ceiling=False).model
        result = EpochResult(epoch, self.state.step, loss, report.r1, report.r5, report.r10, report.map, report.minp)
        self.state.history.append(result)
        if self.state.best == result:
            judged.save(self.folder / "best")
        log.write("val", self.state.step, {k: v for k, v in asdict(result).items() if k != "step"})
        self.observer.on_epoch(result)
        barrier()
        self._clock += time.monotonic() - started

    def _keep_last(self, epoch: int, loss: float, log: "RunLog | NoLog") -> None:
        """Save the model after the last epoch; after every epoch, log that the last one will be kept."""
        last = epoch == self.settings.schedule.epochs
        if last:
            self._judged().save(self.folder / "best")
        log.note("selection", self.state.step, f"no validation (learn_from=train+val): the last epoch is kept, this is {epoch}")
        log.write("epoch", self.state.step, {"epoch": epoch, "loss": loss, "kept": float(last)})

    def _judged(self) -> PersonModel:
        return judged_model(self.model, self.averaged, with_adapters=self.settings.lora is not None)

    def report(self) -> Outcome:
        """Score the best model once on the test split; write report.json and report.png."""
        best = self.state.best
        if rank() > 0:
            return self.outcome(True, None)
        split = "test" if self.splits["test"].images else "val"
        if self.settings.lora is not None:
            merge_adapters(self.model.clip)
        load_weights(self.folder / "best", self.model.clip)
        standing = standing_of(self.model, self.splits[split], self.caches[split], split, with_ceiling=True)
        facts = {
            "settings": self.settings.fingerprint(),
            "data": self.dataset.name,
            "updates": self.state.step,
            "best_epoch": asdict(best) if best else None,
            "selected_by": "val Rank-1" if self.splits["val"].images else "last epoch",
            "history": [asdict(result) for result in self.state.history],
            "split": split,
            "model": standing.model.as_dict(),
            "chance": standing.chance.as_dict(),
            "ceiling": standing.ceiling.as_dict() if standing.ceiling else None,
        }
        write_text(self.folder / "report.json", json.dumps(facts, indent=2) + "\n")
        draw_curves(self.folder / "log.jsonl", self.folder / "report.png", f"{self.dataset.name}: {self.state.step:,} updates")
        return self.outcome(True, standing)

    def outcome(self, finished: bool, standing: Standing | None) -> Outcome:
        """Describe how the run ended."""
        return Outcome(finished, self.state.step, self.state.best, standing, self.parameters, self.trained)


def _averaged(model: PersonModel, decay: float | None) -> AveragedModel | None:
    """Make a copy of the towers for the exponential moving average of their weights; its first update copies the weights."""
    return None if decay is None else AveragedModel(model.clip, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]  # untyped in torch
