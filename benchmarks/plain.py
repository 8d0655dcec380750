"""A straightforward TBPS-CLIP trainer as a baseline for `tbps`: the same method, data, weights and losses, without its
optimisations.

It follows the descriptions of the paper's reference implementation and has no deliberate slowdown. Its differences from
`tbps.training`, with what is known about the reference in quotation marks:

    pictures    `PlainPairs`: opened and decoded by Pillow in workers, every epoch ("reads and decodes every image from disk in
                every epoch"), resized (not the views of self-supervision, which the reference crops from the image itself), then
                augmented one by one ("resize to 224x224, to [0,1], two draws from the pool, normalise", "the reference draws
                with replacement")
    views       all four are always computed ("computes the SimCLR and second views even when their losses are off"), but only
                those with a loss are encoded, one after another
    captions    padded to the whole context, 77 tokens
    attention   plain, with its weights returned ("attention asks for its weights, which turns fused attention off")
    soft labels "the reference runs both towers a second time without gradients to get the detached similarities"
    optimizer   torch's default AdamW, without its fused kernel
    evaluation  the whole score matrix in memory, "full argsort of the score matrix"

Where nothing is known, the cheaper way is taken: an image is resized once for its two weak views, Pillow augments 8-bit images,
captions use the same fast tokenizer, and on CUDA batches come from pinned memory. bfloat16 replaces "fp16 autocast with loss
scaling". Learning rate, soft-label ramp, text augmentation and losses are imported from `tbps`.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import torch
from PIL import Image
from plain_augmentation import open_resized, resized, strong_view, to_pixels, weak_view
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPModel

from tbps.data import PersonDataset, augment_caption, epoch_batches, identities
from tbps.errors import SettingsError
from tbps.losses import c_itc, identity_targets, n_itc, nt_xent, r_itc
from tbps.model import PersonModel, ProjectionHead, bottom_parameters, set_text_attention_dropout
from tbps.preprocess.caption import clean_caption
from tbps.preprocess.image import ImageSpec
from tbps.training.objective import LossSettings
from tbps.training.optimizer import optimizers
from tbps.training.schedule import learning_rate, soft_label_share
from tbps.training.settings import TrainSettings

EMBED_BATCH = 128


class PlainBatch(NamedTuple):
    """A batch of n pairs, ready for the towers: four views (n, 3, H, W) of every image, augmented captions, identities (n,).

    A NamedTuple, whose tensors a DataLoader can pin.
    """

    image: Tensor
    image_second: Tensor
    strong_one: Tensor
    strong_two: Tensor
    captions: Sequence[str]
    identities: Tensor


@final
class PlainPairs(Dataset[Any]):
    """The training pairs; each is read from disk and augmented when it is accessed."""

    def __init__(self, split: PersonDataset, settings: TrainSettings, spec: ImageSpec) -> None:
        self.images, self.pairs, self.settings, self.spec = split.images, split.pairs(), settings, spec

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, row: int) -> tuple[list[Tensor], str, int]:
        pair = self.pairs[row]
        image = self.images[pair.image]
        with Image.open(image.path) as opened:
            original = opened.convert("RGB")
        resize = self.settings.image.training_resize
        picture = resized(original, self.spec, Image.Resampling[resize.upper()])
        strong = original if self.settings.strong_views.source == "reference" else picture
        views = [weak_view(picture, self.settings.image_augmentation) for _ in range(2)]
        views += [strong_view(strong, self.settings.strong_views, picture.size) for _ in range(2)]
        paraphrase = clean_caption(image.captions_bt[pair.caption]) if image.captions_bt else None
        rng = np.random.default_rng(random.getrandbits(64))
        caption = augment_caption(clean_caption(image.captions[pair.caption]), paraphrase, self.settings.text_augmentation, rng)
        return [to_pixels(view, self.spec) for view in views], caption, image.identity


def collate(pairs: Sequence[tuple[list[Tensor], str, int]]) -> PlainBatch:
    """Collates pairs to a batch."""
    views = [torch.stack(view) for view in zip(*(views for views, _, _ in pairs), strict=True)]
    return PlainBatch(*views, [caption for _, caption, _ in pairs], torch.tensor([identity for _, _, identity in pairs]))


@final
class PlainTrainer:
    """Model, optimizer and data of a run with the losses of the TBPS-CLIP recipes."""

    def __init__(self, settings: TrainSettings, model: PersonModel, dataset: PersonDataset, workers: int) -> None:
        check(settings.losses)
        self.settings, self.model, self.dataset, self.workers = settings, model, dataset, workers
        torch.manual_seed(settings.seed)
        random.seed(settings.seed)
        self.head = ProjectionHead(model.dim).to(model.device) if settings.losses.ss_image else None
        set_text_attention_dropout(model.clip, settings.text_attention_dropout)
        model.clip.set_attn_implementation("eager")
        for parameter in bottom_parameters(model.clip, settings.lock):
            parameter.requires_grad_(False)
        learned = nn.ModuleDict({"clip": model.clip} if self.head is None else {"clip": model.clip, "head": self.head})
        self.parameters = [parameter for parameter in learned.parameters() if parameter.requires_grad]
        self.optimizers = [without_fused_kernel(made, settings) for made in optimizers(learned, settings.optimizer)]
        self.pairs = PlainPairs(dataset.split("train"), settings, model.spec)
        self.steps_per_epoch = len(self.pairs) // settings.batch_size
        self.step = 0

    def batches(self) -> DataLoader[PlainBatch]:
        """Returns the batches of all epochs, with the same pairs in the same order as in `tbps`."""
        settings = self.settings
        epochs = range(settings.schedule.epochs)
        order = [
            list(rows) for epoch in epochs for rows in epoch_batches(settings.seed, epoch, len(self.pairs), settings.batch_size)
        ]
        pinned = self.model.device.type == "cuda"
        return DataLoader(
            self.pairs, batch_sampler=order, collate_fn=collate, num_workers=self.workers, pin_memory=pinned
        )  # fmt: skip

    def update(self, batch: PlainBatch) -> float:
        """Does one optimizer step and returns the loss."""
        settings = self.settings
        rate = learning_rate(self.step, self.steps_per_epoch, settings.schedule)
        alpha = soft_label_share(self.step, self.steps_per_epoch, settings.losses.n_itc.soft_label)
        self.model.clip.train()
        loss = self.loss(batch, alpha)
        torch.autograd.backward(loss)
        if settings.optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, settings.optimizer.clip_norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            self.model.clip.logit_scale.clamp_(max=math.log(100))
        self.step += 1
        return loss.item()

    def loss(self, batch: PlainBatch, alpha: float) -> Tensor:
        """Computes the loss of a batch; alpha: weight of the model's own softmax in the soft labels."""
        losses, clip, device = self.settings.losses, self.model.clip, self.model.device
        tokens = self.tokenise(batch.captions).to(device)
        pixels = batch.image.to(device, non_blocking=True)
        with self.autocast():
            image, text = image_features(clip, pixels), text_features(clip, tokens)
            soft_from = None
            if losses.n_itc.soft_label > 0:
                with torch.no_grad():
                    soft_from = (image_features(clip, pixels), text_features(clip, tokens), None)
            second = image_features(clip, batch.image_second.to(device, non_blocking=True)) if losses.second_image else None
            strong = [batch.strong_one, batch.strong_two] if losses.ss_image else []
            strong = [image_features(clip, view.to(device, non_blocking=True)) for view in strong]

        scale = clip.logit_scale.exp()
        ids = batch.identities.to(device)
        targets = identity_targets(ids, ids)
        contrast = n_itc(image, text, targets, scale, alpha, soft_from=soft_from)
        if second is not None:
            contrast = (
                contrast + n_itc(second, text, targets, scale, alpha)
            ) / 2  # soft labels from its own similarities, as in `tbps`
        total = losses.n_itc.weight * contrast
        if losses.r_itc.weight > 0:
            r = losses.r_itc
            total = total + r.weight * r_itc(image, text, targets, scale, r.eps, labels=r.labels)
        if losses.c_itc.weight > 0:
            c = losses.c_itc
            total = total + c.weight * c_itc(image, text, c.in_modal, c.cross_modal, variant=c.variant)
        if strong and self.head is not None:
            one, two = (self.head(view.float()) for view in strong)
            total = total + losses.ss.weight * nt_xent(one, two, losses.ss.temperature)
        return total

    def tokenise(self, captions: Sequence[str]) -> Tensor:
        """Tokenises captions to (n, context), always padded to the whole context."""
        model = self.model
        given = {"padding": "max_length", "truncation": True, "max_length": model.context_length, "return_tensors": "pt"}
        tokens: Tensor = model.tokenizer(list(captions), **given)["input_ids"]
        return tokens

    def autocast(self) -> torch.autocast:
        """Returns the autocast context for the precision of the settings."""
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    @torch.no_grad()
    def embed(self, name: str) -> tuple[Tensor, Tensor]:
        """Embeds a split: unit embeddings (text, image) on the CPU; images are read from disk, captions stay in order."""
        split, clip, device = self.dataset.split(name), self.model.clip.eval(), self.model.device
        pictures = DataLoader(
            PlainPictures(split, self.model.spec),
            batch_size=EMBED_BATCH,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
        )
        images = [image_features(clip, pixels.to(device, non_blocking=True)) for pixels in pictures]
        captions = [clean_caption(split.images[pair.image].captions[pair.caption]) for pair in split.pairs()]
        chunks = [captions[start : start + EMBED_BATCH] for start in range(0, len(captions), EMBED_BATCH)]
        texts = [text_features(clip, self.tokenise(chunk).to(device)) for chunk in chunks]
        text, image = (nn.functional.normalize(torch.cat(rows).float(), dim=1).cpu() for rows in (texts, images))
        return text, image

    def evaluate(self, name: str) -> "PlainReport":
        """Computes Rank-1, mAP and mINP on a split."""
        text, image = self.embed(name)
        text_ids, image_ids = identities(self.dataset.split(name))
        return metrics_by_argsort(text, image, torch.from_numpy(text_ids), torch.from_numpy(image_ids))


@final
class PlainPictures(Dataset[Any]):
    """The images of a split, not augmented."""

    def __init__(self, split: PersonDataset, spec: ImageSpec) -> None:
        self.images, self.spec = split.images, spec

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Tensor:
        return to_pixels(open_resized(self.images[row].path, self.spec), self.spec)


def check(losses: LossSettings) -> None:
    """Raises SettingsError for losses that no TBPS-CLIP recipe uses."""
    foreign = {"sdm": losses.sdm.weight, "tal": losses.tal.weight, "id": losses.id.weight, "mlm": losses.mlm.weight}
    unknown = [name for name, weight in foreign.items() if weight > 0]
    if unknown or losses.second_text or losses.n_itc.labels != "identity":
        raise SettingsError(f"the plain trainer supports only the losses of the TBPS-CLIP recipes, not {unknown or 'these'}")


def image_features(clip: CLIPModel, pixels: Tensor) -> Tensor:
    """Computes image embeddings: (n, 3, H, W) -> (n, D). Attention returns its weights, which are not used."""
    features: Tensor = clip.visual_projection(clip.vision_model(pixel_values=pixels, output_attentions=True).pooler_output)
    return features


def text_features(clip: CLIPModel, tokens: Tensor) -> Tensor:
    """Computes text embeddings: (n, 77) -> (n, D). Attention returns its weights, which are not used."""
    features: Tensor = clip.text_projection(clip.text_model(input_ids=tokens, output_attentions=True).pooler_output)
    return features


def without_fused_kernel(made: torch.optim.Optimizer, settings: TrainSettings) -> torch.optim.Optimizer:
    """Rebuilds AdamW with the same parameters, rates and decays without the fused kernel; other optimizers are
    returned unchanged.
    """
    if not isinstance(made, torch.optim.AdamW):
        return made
    groups = [{name: group[name] for name in ("params", "weight_decay", "factor")} for group in made.param_groups]
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.optimizer.betas, eps=settings.optimizer.eps)


@dataclass(frozen=True, slots=True)
class PlainReport:
    """Metrics in percent."""

    r1: float
    map: float
    minp: float


def metrics_by_argsort(text: Tensor, image: Tensor, text_ids: Tensor, image_ids: Tensor) -> PlainReport:
    """Computes metrics from complete rankings, as published evaluation code does."""
    scores = text @ image.T  # (Q, G)
    order = torch.argsort(scores, dim=1, descending=True)
    right = image_ids[order] == text_ids[:, None]
    place = torch.arange(1, right.shape[1] + 1)
    relevant = right.sum(dim=1)
    precision = (right.cumsum(dim=1) / place * right).sum(dim=1) / relevant
    last = (right * place).amax(dim=1)
    return PlainReport(*(100 * value.double().mean().item() for value in (right[:, 0], precision, relevant / last)))


def train(settings: TrainSettings, model: PersonModel, dataset: PersonDataset, workers: int) -> PlainReport:
    """Trains `model` and returns its metrics on the test split after the last epoch."""
    trainer = PlainTrainer(settings, model, dataset, workers)
    for batch in trainer.batches():
        trainer.update(batch)
    return trainer.evaluate("test")
