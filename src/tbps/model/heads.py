"""Heads that only training needs: a projection for NT-Xent, an identity classifier, the cross-modal encoder of MLM."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tbps.model.cross_modal import CrossModalEncoder


@final
class ProjectionHead(nn.Module):
    """The two-layer MLP of SimCLR (D, hidden, D with ReLU) on un-normalised embeddings."""

    def __init__(self, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim))

    def forward(self, features: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """(n, D) -> (n, D)."""
        projected: Tensor = self.layers(features)
        return projected


@final
class IdentityClassifier(nn.Module):
    """One linear layer for the embeddings of both modalities; `identities` are numbered from 0."""

    def __init__(self, dim: int, identities: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, identities)
        nn.init.normal_(self.linear.weight, std=0.001)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Float[Tensor, "n D"]) -> Float[Tensor, "n C"]:
        """(n, D) -> (n, identities)."""
        logits: Tensor = self.linear(features)
        return logits


@final
class Heads(nn.Module):
    """The heads of the losses that are on; the others are None."""

    def __init__(
        self,
        image_projection: ProjectionHead | None = None,
        text_projection: ProjectionHead | None = None,
        classifier: IdentityClassifier | None = None,
        cross_modal: CrossModalEncoder | None = None,
    ) -> None:
        super().__init__()
        self.image_projection = image_projection
        self.text_projection = text_projection
        self.classifier = classifier
        self.cross_modal = cross_modal


def label_of(identities: Int[Tensor, "*n"], known: Int[Tensor, " C"]) -> Int[Tensor, "*n"]:
    """Positions of identities among the sorted `known` ones: the labels of the classifier."""
    return torch.searchsorted(known, identities)
