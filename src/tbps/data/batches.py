"""Training batches of (image, caption) pairs. Their content depends on seed, epoch and step only, also in a resumed run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from tbps.data.augment.pair import PairAugmentation, mix_pairs
from tbps.data.augment.text import TextAugmentation, augment_caption
from tbps.data.proportions import Pictures
from tbps.data.records import Batch, Pair, PersonDataset
from tbps.errors import DataError, SettingsError
from tbps.preprocess.caption import clean_caption
from tbps.seeding import generator, torch_generator
from tbps.transfer import send

_UNMIXED = PairAugmentation()

Tokenise = Callable[[list[str]], torch.Tensor]


def epoch_batches(seed: int, epoch: int, pairs: int, batch_size: int) -> np.ndarray:
    """Permutes the pairs and cuts them into batches: (steps, batch_size) int64; the last partial batch is dropped.

    Raises DataError when there are fewer pairs than one batch holds.
    """
    if pairs < batch_size:
        raise DataError(f"{pairs} (image, caption) pairs do not fill one batch of {batch_size}; use a smaller batch size")
    steps = pairs // batch_size
    order = generator(seed, "order", epoch).permutation(pairs)
    return order[: steps * batch_size].reshape(steps, batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """Training batches of one split.

    `images`: (N, H, W, 3) uint8; row i shows `dataset.images[i]` (an `ImageCache` of this split, or `cache.near` of it).
    `pictures`: the same images in their own proportions, if a loss needs them. `tokenise`: N texts -> (N, L) int64 tokens.
    `batch_size`: size of the global batch, of which process `rank` of `world_size` gets its part. `text`: text augmentation, which
    depends on seed, epoch and pair, not on the number of processes. `second_text`: adds a second, independently augmented view of
    every caption. `mixing`: pair augmentation.

    Raises DataError when images and data set differ in number, the split has fewer pairs than a batch, or a paraphrase that `text`
    uses is missing; MissingDependencyError when `text` needs WordNet and it is missing; SettingsError when the batch cannot be
    divided among the processes, or pairs are mixed while `second_text` is set (its views would show other pairs); CaptionError for
    a caption without a word.
    """

    dataset: PersonDataset
    images: np.ndarray | torch.Tensor
    tokenise: Tokenise
    text: TextAugmentation
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    second_text: bool = False
    mixing: PairAugmentation = _UNMIXED
    pictures: Pictures | None = None
    _pairs: tuple[Pair, ...] = field(init=False)
    _captions: tuple[str, ...] = field(init=False)
    _paraphrases: tuple[str | None, ...] = field(init=False)

    def __post_init__(self) -> None:
        if any(len(cached) != len(self.dataset.images) for cached in (self.images, self.pictures or self.images)):
            raise DataError(
                f"{len(self.images)} cached images for {len(self.dataset.images)} of the split; delete the cache and run again"
            )
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise SettingsError(f"a batch of {self.batch_size} does not divide among {self.world_size} processes")
        if self.second_text and self.mixing.method != "none":
            raise SettingsError(
                f"pair_augmentation.method = {self.mixing.method!r} cannot be combined with a second view of the caption"
            )
        if self.text.uses_synonyms:
            from tbps.data.augment.wordnet import open_wordnet  # few recipes need NLTK

            open_wordnet()
        pairs = self.dataset.pairs()
        epoch_batches(self.seed, 0, len(pairs), self.batch_size)
        object.__setattr__(self, "_pairs", tuple(pairs))
        object.__setattr__(self, "_captions", tuple(self._caption(pair) for pair in pairs))
        object.__setattr__(self, "_paraphrases", tuple(self._paraphrase(pair) for pair in pairs))

    @property
    def steps(self) -> int:
        """Number of batches per epoch."""
        return len(self._pairs) // self.batch_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yields the batches of steps `start`, `start + 1`, ... of an epoch."""
        batches = epoch_batches(self.seed, epoch, len(self._pairs), self.batch_size)
        share = self.batch_size // self.world_size
        for step in range(start, len(batches)):
            yield self._batch(epoch, step, batches[step][self.rank * share : (self.rank + 1) * share])

    def _batch(self, epoch: int, step: int, rows: np.ndarray) -> Batch:
        images = np.array([self._pairs[row].image for row in rows])
        pixels = self._pixels(images)
        captions = [self._text("text", epoch, int(row)) for row in rows]
        second = self.tokenise([self._text("second-text", epoch, int(row)) for row in rows]) if self.second_text else None
        identities = torch.tensor([self.dataset.images[image].identity for image in images], dtype=torch.int64)
        mixed = mix_pairs(pixels, captions, identities, self.mixing, torch_generator(self.seed, "mix", epoch, step, self.rank))
        mixed_with = None if self.mixing.method == "none" else mixed.mixed_with
        return Batch(
            images=mixed.images,
            tokens=self.tokenise(list(mixed.captions)),
            identities=identities,
            tokens_second=second,
            mixed_with=mixed_with,
            pairs=torch.from_numpy(rows.copy()),
            pictures=None if self.pictures is None else tuple(self.pictures[image] for image in images),
        )

    def _pixels(self, images: np.ndarray) -> torch.Tensor:
        """Returns the images of these rows as (n, 3, H, W), on the device of `images`."""
        if isinstance(self.images, torch.Tensor):
            rows = send(torch.from_numpy(images), self.images.device)
            return self.images[rows].permute(0, 3, 1, 2).contiguous()
        return torch.from_numpy(np.ascontiguousarray(self.images[images].transpose(0, 3, 1, 2)))

    def _text(self, view: str, epoch: int, row: int) -> str:
        rng = generator(self.seed, view, epoch, row)
        return augment_caption(self._captions[row], self._paraphrases[row], self.text, rng)

    def _caption(self, pair: Pair) -> str:
        return clean_caption(self.dataset.images[pair.image].captions[pair.caption])

    def _paraphrase(self, pair: Pair) -> str | None:
        if not self.text.uses_paraphrases:
            return None
        image = self.dataset.images[pair.image]
        if len(image.captions_bt) != len(image.captions):
            raise DataError(
                f"{image.path} has {len(image.captions_bt)} paraphrases (captions_bt) for {len(image.captions)} captions; "
                "add them with `tbps data backtranslate`, or set text_augmentation.paraphrase_probability=0"
            )
        return clean_caption(image.captions_bt[pair.caption])
