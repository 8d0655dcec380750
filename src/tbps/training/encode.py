"""From a batch to the embeddings that the losses need: only the views whose losses are on, the image views in one run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.profiler import record_function
from transformers import CLIPModel

from tbps.data.augment_image import augment_images
from tbps.data.augment_views import simclr_view
from tbps.data.records import Batch
from tbps.distributed import rank, total
from tbps.losses.classification import UNMASKED, mask_tokens, mlm_loss
from tbps.model.clip import image_features, image_states, project_image, text_features_in_parts, text_tokens
from tbps.model.heads import Heads
from tbps.preprocess.image import ImageSpec, normalise
from tbps.seeding import entropy, torch_generator
from tbps.training.objective import Features
from tbps.training.settings import TrainSettings
from tbps.transfer import send


@dataclass(frozen=True, slots=True)
class Views:
    """What the towers see of n pairs: pixels on the device, tokens on the CPU; None where no loss needs a view.

    `masked`, `words`: the caption with words masked, and the words to predict. `word_count`: masked words of the global batch.
    """

    image: Float[Tensor, "n 3 H W"]
    text: Int[Tensor, "n L"]
    image_second: Float[Tensor, "n 3 H W"] | None = None
    text_second: Int[Tensor, "n K"] | None = None
    strong_one: Float[Tensor, "n 3 H W"] | None = None
    strong_two: Float[Tensor, "n 3 H W"] | None = None
    masked: Int[Tensor, "n L"] | None = None
    words: Int[Tensor, "n L"] | None = None
    word_count: Tensor | float = 1.0

    def part(self, rows: slice) -> "Views":
        """The views of some of the pairs."""

        def cut(view: Tensor | None) -> Tensor | None:
            return None if view is None else view[rows]

        return Views(
            image=self.image[rows],
            text=self.text[rows],
            image_second=cut(self.image_second),
            text_second=cut(self.text_second),
            strong_one=cut(self.strong_one),
            strong_two=cut(self.strong_two),
            masked=cut(self.masked),
            words=cut(self.words),
            word_count=self.word_count,
        )


def draw_views(batch: Batch, settings: TrainSettings, spec: ImageSpec, vocabulary: int, step: int) -> Views:
    """The augmented views of this process's pairs at an update, drawn from (seed, step, rank) only."""
    losses = settings.losses

    def weak(name: str) -> Tensor:
        generator = torch_generator(settings.seed, name, step, rank())  # on the CPU: few numbers, no waiting for the device
        return normalise(augment_images(batch.images, settings.image_augmentation, generator), spec, overwrite=True)

    def strong(name: str) -> Tensor:
        generator = torch_generator(settings.seed, name, step, rank())
        return normalise(simclr_view(batch.images, settings.strong_views, generator), spec, overwrite=True)

    views = Views(
        image=weak("augmentation"),
        text=batch.tokens,
        image_second=weak("second-view") if losses.second_image else None,
        text_second=batch.tokens_second,
        strong_one=strong("strong-one") if losses.ss_image else None,
        strong_two=strong("strong-two") if losses.ss_image else None,
    )
    if losses.mlm.weight == 0:
        return views
    # CLIP's vocabulary ends with its rarest merge, the start and the end token; IRRA makes that merge the mask.
    generator = torch_generator(settings.seed, "mask", step, rank())
    masked, words = mask_tokens(batch.tokens, vocabulary - 3, vocabulary - 3, losses.mlm.probability, generator)
    count = total(send((words != UNMASKED).sum().float(), batch.images.device))
    return replace(views, masked=masked, words=words, word_count=count.clamp(min=1))


HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def encode(  # noqa: PLR0913 - who sees what, and which passes
    clip: CLIPModel,
    heads: Heads,
    views: Views,
    settings: TrainSettings,
    *,
    calm: bool,
    words: bool,
    teacher: CLIPModel | None = None,
) -> Features:
    """Embeddings of every view. `calm` adds the passes without gradients, of the teacher and where it is on for soft labels;
    `words` adds the MLM loss where it is on.

    Half precision ends here: heads, losses, and what processes exchange are float32 (float64 where the towers are).
    """
    roles = ("image", "image_second", "strong_one", "strong_two")
    pixels = {role: view for role in roles if (view := getattr(views, role)) is not None}
    teacher = teacher if calm else None
    calm = calm and settings.losses.separate_pass
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
            calm_image=_calm_image(clip, views) if calm else None,
            calm_text=_calm_text(clip, views, settings) if calm else None,
            teacher_image=None if teacher is None else _calm_image(teacher, views),
            teacher_text=None if teacher is None else _calm_text(teacher, views, settings),
            mlm=_mlm(clip, heads, views, project_image(clip, states[: len(views.image)])) if words else None,
        )
    return _wide(features)


def _wide(features: Features) -> Features:
    views = {field.name: getattr(features, field.name) for field in fields(features)}
    halves = {name: view.float() for name, view in views.items() if view is not None and view.dtype in HALVES.values()}
    return replace(features, **halves)


@contextmanager
def dropout_from(settings: TrainSettings, step: int, part: int, device: torch.device) -> Iterator[None]:
    """Dropout masks drawn from (seed, step, rank, part), so that a part that is encoded twice sees the same ones twice."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(entropy(settings.seed, "dropout", step, rank(), part) & (2**63 - 1))
        yield


@torch.no_grad()
def _calm_image(clip: CLIPModel, views: Views) -> Tensor:
    return image_features(clip, views.image)


@torch.no_grad()
def _calm_text(clip: CLIPModel, views: Views, settings: TrainSettings) -> Tensor:
    return text_features_in_parts(clip, views.text, settings.text_parts)


def _mlm(clip: CLIPModel, heads: Heads, views: Views, image: Tensor) -> Tensor:
    assert heads.cross_modal is not None and views.masked is not None and views.words is not None
    words = views.words.flatten()
    chosen = (words != UNMASKED).nonzero()[:, 0]  # on the CPU: how many there are is known without asking the device
    seen = heads.cross_modal(text_tokens(clip, send(views.masked, image.device)), image).flatten(0, 1)
    return mlm_loss(
        heads.cross_modal.predict(seen[send(chosen, image.device)]), send(words[chosen], image.device), views.word_count
    )
