"""Records of person images, captions and training batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from tbps.transfer import send


@dataclass(frozen=True, slots=True)
class PersonImage:
    """One crop of one person with its captions.

    `path` is absolute and inside the data set's image root. `captions_bt` (back translations) is empty or aligned with `captions`.
    `attributes` holds all other columns of the annotation (ground truth of mannequins, columns of a `folder`). Do not modify it:
    equal texts and lists are shared between images.
    """

    path: Path
    identity: int
    split: str
    captions: tuple[str, ...]
    captions_bt: tuple[str, ...] = ()
    camera: str | None = None
    captured_at: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """One (image, caption) pair: positions in `PersonDataset.images` and in that image's captions."""

    image: int
    caption: int


@dataclass(frozen=True, slots=True)
class PersonDataset:
    """A data set or one split of it, in annotation order.

    `warnings`: warnings of the reader (counts that differ from the published ones, identical captions of two identities).
    """

    name: str
    root: Path
    images: tuple[PersonImage, ...]
    warnings: tuple[str, ...] = ()

    def split(self, name: str) -> "PersonDataset":
        """Returns the images of one split ("train", "val" or "test"); may be empty."""
        return PersonDataset(self.name, self.root, tuple(i for i in self.images if i.split == name))

    def pairs(self) -> list[Pair]:
        """Lists every (image, caption) pair in order: the pairs of a training epoch, the queries of an evaluation."""
        return [Pair(i, c) for i, image in enumerate(self.images) for c in range(len(image.captions))]


@dataclass(frozen=True, slots=True)
class Batch:
    """One training batch: images before augmentation, and captions padded behind the end token.

    `tokens_second`: a second augmented view of every caption, if a loss needs it. `mixed_with`: the second identity of a mixed pair
    (MixGen, ConcatGen), the pair's own identity for others; None if pairs are not mixed. `pairs`: positions in
    `PersonDataset.pairs()`. `pictures`: the images in their own proportions, if views are cropped from those; for a mixed pair, its
    first image.
    """

    images: UInt8[Tensor, "N 3 H W"]
    tokens: Int64[Tensor, "N L"]
    identities: Int64[Tensor, " N"]
    tokens_second: Int64[Tensor, "N K"] | None = None
    mixed_with: Int64[Tensor, " N"] | None = None
    pairs: Int64[Tensor, " N"] | None = None
    pictures: tuple[UInt8[np.ndarray, "_ _ 3"], ...] | None = None

    def to(self, device: torch.device) -> "Batch":
        """Copies images and identities to a device without blocking; captions, `pairs` and `pictures` stay on the CPU."""
        mixed = None if self.mixed_with is None else send(self.mixed_with, device)
        return replace(self, images=send(self.images, device), identities=send(self.identities, device), mixed_with=mixed)
