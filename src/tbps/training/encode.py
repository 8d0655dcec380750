"""From a batch to the embeddings that the losses need: only the views whose losses are on, the image views in one run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.profiler import record_function
from transformers import CLIPModel

from tbps.data.augment.image import augment_images
from tbps.data.augment.views import simclr_view, simclr_view_of
from tbps.data.records import Batch
from tbps.distributed import rank, total, world_size
from tbps.losses.classification import UNMASKED, mask_tokens, mlm_loss
from tbps.model.clip import image_features, image_states, project_image, text_features_in_parts, text_tokens
from tbps.model.heads import Heads
from tbps.model.tokens import behind_captions, padded_to
from tbps.preprocess.image import ImageSpec, normalise
from tbps.seeding import entropy, torch_generator
from tbps.training.objective import Features, LossSettings
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


def draw_views(batch: Batch, settings: TrainSettings, spec: ImageSpec, vocabulary: int, step: int, context: int = 77) -> Views:
    """The augmented views of this process's pairs at an update, drawn from (seed, step, rank) only.

    `vocabulary`, `context`: of the model, in tokens.
    """
    losses = settings.losses

    def weak(name: str) -> Tensor:
        generator = torch_generator(settings.seed, name, step, rank())  # on the CPU: few numbers, no waiting for the device
        return normalise(augment_images(batch.images, settings.image_augmentation, generator), spec, overwrite=True)

    def strong(name: str) -> Tensor:
        generator, asked = torch_generator(settings.seed, name, step, rank()), settings.strong_views
        if asked.source == "squashed":
            return normalise(simclr_view(batch.images, asked, generator), spec, overwrite=True)
        if batch.pictures is None:
            raise ValueError('strong_views.source = "reference" crops Batch.pictures, which this batch lacks')
        size = (batch.images.shape[2], batch.images.shape[3])
        return normalise(simclr_view_of(batch.pictures, size, asked, generator, batch.images.device), spec, overwrite=True)

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
    masked, words = _mask(batch.tokens, settings, vocabulary, step, context)
    count = total(send((words != UNMASKED).sum().float(), batch.images.device))
    return replace(views, masked=masked, words=words, word_count=count.clamp(min=1))


def _mask(
    tokens: Int[Tensor, "n L"], settings: TrainSettings, vocabulary: int, step: int, context: int
) -> tuple[Int[Tensor, "n K"], Int[Tensor, "n K"]]:
    """The captions with words masked, and the words. What is drawn for a pair depends on its place in the global batch alone: not
    on how long the captions beside it are, nor on how many processes share the batch.
    """
    mlm, pairs = settings.losses.mlm, len(tokens)
    # CLIP's vocabulary ends with its rarest merge, the start and the end token; IRRA makes that merge the mask.
    given = (vocabulary - 3, vocabulary - 3, mlm.probability)
    if mlm.padding == "batch":
        return mask_tokens(tokens, *given, torch_generator(settings.seed, "mask", step, rank()))
    own = slice(rank() * pairs, (rank() + 1) * pairs)
    everyone = torch.zeros(world_size() * pairs, context, dtype=tokens.dtype)
    everyone[own] = padded_to(tokens, context)
    drawn = mask_tokens(everyone, *given, torch_generator(settings.seed, "mask", step, 0), spared=behind_captions(everyone))
    length = tokens.shape[1] if mlm.padding == "masked" else context
    masked, words = (seen[own, :length] for seen in drawn)
    return masked, words


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
def _calm_image(clip: CLIPModel, pixels: Tensor) -> Tensor:
    return image_features(clip, pixels)


@torch.no_grad()
def _calm_text(clip: CLIPModel, tokens: Tensor, settings: TrainSettings) -> Tensor:
    return text_features_in_parts(clip, tokens, settings.text_parts)


def _mlm(clip: CLIPModel, heads: Heads, views: Views, image: Tensor, losses: LossSettings) -> Tensor:
    assert heads.cross_modal is not None and views.masked is not None and views.words is not None
    words = views.words.flatten()
    chosen = (words != UNMASKED).nonzero()[:, 0]  # on the CPU: how many there are is known without asking the device
    unseen = send(behind_captions(views.masked), image.device) if losses.mlm.padding == "masked" else None
    seen = heads.cross_modal(text_tokens(clip, send(views.masked, image.device)), image, unseen).flatten(0, 1)
    return mlm_loss(
        heads.cross_modal.predict(seen[send(chosen, image.device)]), send(words[chosen], image.device), views.word_count
    )
