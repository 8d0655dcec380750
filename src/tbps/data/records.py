"""The records that carry person images and captions through the project."""

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

    `path` is absolute and inside the data set's image root. `captions_bt` is empty or aligned with `captions`. `attributes`
    holds every further column of the annotation (ground truth of mannequins, columns of a `folder`); equal texts and lists in it
    are shared by all images, and so are not to be edited.
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

    `warnings` are the reader's remarks (counts that differ from the published ones, identical captions on two identities).
    """

    name: str
    root: Path
    images: tuple[PersonImage, ...]
    warnings: tuple[str, ...] = ()

    def split(self, name: str) -> "PersonDataset":
        """The images of one split ("train", "val" or "test"); may be empty."""
        return PersonDataset(self.name, self.root, tuple(i for i in self.images if i.split == name))

    def pairs(self) -> list[Pair]:
        """Every (image, caption) pair in order: what an epoch passes over, and the queries of an evaluation."""
        return [Pair(i, c) for i, image in enumerate(self.images) for c in range(len(image.captions))]


@dataclass(frozen=True, slots=True)
class Batch:
    """One training batch: images not yet augmented, and captions padded behind the end token.

    `tokens_second`: a second augmented view of every caption, where a loss needs it. `mixed_with`: the second identity of a pair
    that is two in one, of any other its own once more; None where none is. `pairs`: positions in `PersonDataset.pairs()`.
    `pictures`: the images in their own proportions, where views are cropped from those; of a pair that is two in one, its first.
    """

    images: UInt8[Tensor, "N 3 H W"]
    tokens: Int64[Tensor, "N L"]
    identities: Int64[Tensor, " N"]
    tokens_second: Int64[Tensor, "N K"] | None = None
    mixed_with: Int64[Tensor, " N"] | None = None
    pairs: Int64[Tensor, " N"] | None = None
    pictures: tuple[UInt8[np.ndarray, "_ _ 3"], ...] | None = None

    def to(self, device: torch.device) -> "Batch":
        """Images and identities on a device, without waiting for it; what the CPU reads (captions, `pairs`, `pictures`)
        stays."""
        mixed = None if self.mixed_with is None else send(self.mixed_with, device)
        return replace(self, images=send(self.images, device), identities=send(self.identities, device), mixed_with=mixed)
