"""Draw the augmented views of a batch: the images and captions that the towers encode in one update."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbps.data.augment.image import augment_images
from tbps.data.augment.views import simclr_view, simclr_view_of
from tbps.data.records import Batch
from tbps.distributed import rank, total, world_size
from tbps.losses.classification import UNMASKED, mask_tokens
from tbps.model.tokens import behind_captions, padded_to
from tbps.preprocess.image import ImageSpec, normalise
from tbps.seeding import torch_generator
from tbps.training.settings import TrainSettings
from tbps.transfer import send


@dataclass(frozen=True, slots=True)
class Views:
    """Views of n pairs: pixels on the device, tokens on the CPU; None for views that no loss needs.

    `*_second`: second augmented views. `strong_*`: the two image views of self-supervision. `masked`, `words`: captions with masked
    words, and the words to predict. `word_count`: number of masked words in the global batch.
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
    """Draw the views of this process's pairs for update `step`; they depend on (seed, step, rank) only.

    `vocabulary`: size of the model's vocabulary. `context`: its context length in tokens.
    """
    losses = settings.losses

    def weak(name: str) -> Tensor:
        generator = torch_generator(settings.seed, name, step, rank())  # on the CPU: few numbers, no synchronisation
        return normalise(augment_images(batch.images, settings.image_augmentation, generator), spec, overwrite=True)

    def strong(name: str) -> Tensor:
        generator, wanted = torch_generator(settings.seed, name, step, rank()), settings.strong_views
        if wanted.source == "squashed":
            return normalise(simclr_view(batch.images, wanted, generator), spec, overwrite=True)
        if batch.pictures is None:
            raise ValueError('strong_views.source = "reference" crops Batch.pictures, which this batch lacks')
        size = (batch.images.shape[2], batch.images.shape[3])
        return normalise(simclr_view_of(batch.pictures, size, wanted, generator, batch.images.device), spec, overwrite=True)

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
    """Mask words of captions; returns the masked tokens and the words to predict.

    With `padding` other than "batch", the draws of a pair depend only on its position in the global batch, not on the lengths of
    other captions or the number of processes.
    """
    mlm, pairs = settings.losses.mlm, len(tokens)
    # The last three tokens of CLIP's vocabulary are its rarest merge, the start and the end token. IRRA masks with that merge.
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
