"""Inputs of the losses of a batch: embeddings of its views, and labels of its pairs."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Features:
    """Un-normalised embeddings (n, D) of the views of n pairs; None for views that no loss needs.

    `image`, `text`: first views. `*_second`: second views. `strong_*`: the two strongly augmented image views of self-supervision.
    `calm_*`: embeddings of the pass without gradients for separate soft labels. `teacher_*`: the teacher's embeddings of the first
    views. `mlm`: the MLM loss of these pairs, which is computed from tokens and not from embeddings.
    """

    image: Float[Tensor, "n D"]
    text: Float[Tensor, "n D"]
    image_second: Float[Tensor, "n D"] | None = None
    text_second: Float[Tensor, "n D"] | None = None
    strong_one: Float[Tensor, "n D"] | None = None
    strong_two: Float[Tensor, "n D"] | None = None
    calm_image: Float[Tensor, "n D"] | None = None
    calm_text: Float[Tensor, "n D"] | None = None
    calm_image_second: Float[Tensor, "n D"] | None = None
    calm_text_second: Float[Tensor, "n D"] | None = None
    teacher_image: Float[Tensor, "n D"] | None = None
    teacher_text: Float[Tensor, "n D"] | None = None
    mlm: Float[Tensor, ""] | None = None


@dataclass(frozen=True, slots=True)
class Labels:
    """Identities and weights of n pairs.

    `known`: all training identities, sorted; the classes of the identity classifier. `mixed_with`: second identities of pairs that
    were mixed from two (`data.augment.pair`); every loss over identities counts both. `weights`: weight of each pair as a row of
    N-ITC, MVS, R-ITC, SDM and TAL (see `training.division`); means are still over all rows. Self-supervision ignores them.
    """

    identities: Int[Tensor, " n"]
    known: Int[Tensor, " C"] | None = None
    mixed_with: Int[Tensor, " n"] | None = None
    weights: Float[Tensor, " n"] | None = None

    @property
    def people(self) -> Int[Tensor, " n"] | Int[Tensor, "n 2"]:
        """The identities of every pair, one or two."""
        return self.identities if self.mixed_with is None else torch.stack([self.identities, self.mixed_with], 1)
