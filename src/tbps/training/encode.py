"""Encode the views of a batch to the embeddings that the losses need; all image views pass through the tower together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.profiler import record_function
from transformers import CLIPModel

from tbps.distributed import rank
from tbps.losses.classification import UNMASKED, mlm_loss
from tbps.model.clip import image_features, image_states, project_image, text_features_in_parts, text_tokens
from tbps.model.heads import Heads
from tbps.model.tokens import behind_captions
from tbps.seeding import entropy
from tbps.training.objective import Features, LossSettings
from tbps.training.settings import TrainSettings
from tbps.training.views import Views
from tbps.transfer import send

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Half-precision types by the name of the precision."""


@dataclass(frozen=True, slots=True)
class PartEncoder:
    """Encode a batch in parts of `size` pairs, each with its own dropout masks (see `dropout_from`)."""

    clip: CLIPModel
    heads: Heads
    views: Views
    settings: TrainSettings
    step: int
    size: int
    teacher: CLIPModel | None = None

    def __call__(self, part: int, *, calm: bool, words: bool) -> Features:
        """Encode one part, numbered from 0; `calm` and `words` as in `encode`."""
        rows = self.views.part(slice(part * self.size, (part + 1) * self.size))
        with dropout_from(self.settings, self.step, part, self.views.image.device):
            return encode(self.clip, self.heads, rows, self.settings, calm=calm, words=words, teacher=self.teacher)


def encode(  # noqa: PLR0913 - models, views, and which passes to make
    clip: CLIPModel,
    heads: Heads,
    views: Views,
    settings: TrainSettings,
    *,
    calm: bool,
    words: bool,
    teacher: CLIPModel | None = None,
) -> Features:
    """Encode every view.

    `calm`: whether to run the passes without gradients, those of the teacher and for separate soft labels. `words`: whether to
    compute the MLM loss, if its weight is positive. Heads, losses and exchange between processes use float32 (float64 if the towers
    do), whatever the precision of the towers.
    """
    roles = ("image", "image_second", "strong_one", "strong_two")
    pixels = {role: view for role in roles if (view := getattr(views, role)) is not None}
    teacher = teacher if calm else None
    losses = settings.losses
    calm = calm and losses.separate_pass
    second_image = views.image_second if calm and losses.second_image else None
    second_text = views.text_second if calm and losses.second_text_in_mvs else None
    words = words and views.masked is not None
    half = HALVES.get(settings.precision)
    with torch.autocast(views.image.device.type, half, enabled=half is not None):
        with record_function("tbps: encode image"):
            states = image_states(clip, torch.cat(list(pixels.values())))  # (views * n, P, width)
            images = dict(zip(pixels, project_image(clip, states[:, 0]).chunk(len(pixels)), strict=True))
        with record_function("tbps: encode text"):
            second = views.text_second
            text = text_features_in_parts(clip, views.text, settings.text_parts)
            text_second = None if second is None else text_features_in_parts(clip, second, settings.text_parts)
        features = Features(
            **images,
            text=text,
            text_second=text_second,
            calm_image=_calm_image(clip, views.image) if calm else None,
            calm_text=_calm_text(clip, views.text, settings) if calm else None,
            calm_image_second=None if second_image is None else _calm_image(clip, second_image),
            calm_text_second=None if second_text is None else _calm_text(clip, second_text, settings),
            teacher_image=None if teacher is None else _calm_image(teacher, views.image),
            teacher_text=None if teacher is None else _calm_text(teacher, views.text, settings),
            mlm=_mlm(clip, heads, views, project_image(clip, states[: len(views.image)]), losses) if words else None,
        )
    return _wide(features)


@contextmanager
def dropout_from(settings: TrainSettings, step: int, part: int, device: torch.device) -> Iterator[None]:
    """Draw dropout masks from (seed, step, rank, part), so that encoding a part twice gives the same masks."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(entropy(settings.seed, "dropout", step, rank(), part) & (2**63 - 1))
        yield


def _wide(features: Features) -> Features:
    views = {field.name: getattr(features, field.name) for field in fields(features)}
    halves = {name: view.float() for name, view in views.items() if view is not None and view.dtype in HALVES.values()}
    return replace(features, **halves)


@torch.no_grad()
def _calm_image(clip: CLIPModel, pixels: Tensor) -> Tensor:
    return image_features(clip, pixels)


@torch.no_grad()
def _calm_text(clip: CLIPModel, tokens: Tensor, settings: TrainSettings) -> Tensor:
    return text_features_in_parts(clip, tokens, settings.text_parts)


def _mlm(clip: CLIPModel, heads: Heads, views: Views, image: Tensor, losses: LossSettings) -> Tensor:
    assert heads.cross_modal is not None and views.masked is not None and views.words is not None
    words = views.words.flatten()
    chosen = (words != UNMASKED).nonzero()[:, 0]  # on the CPU: `nonzero` on a GPU would synchronise
    unseen = send(behind_captions(views.masked), image.device) if losses.mlm.padding == "masked" else None
    seen = heads.cross_modal(text_tokens(clip, send(views.masked, image.device)), image, unseen).flatten(0, 1)
    return mlm_loss(
        heads.cross_modal.predict(seen[send(chosen, image.device)]), send(words[chosen], image.device), views.word_count
    )
