"""Training heads: projection for NT-Xent, identity classifier, cross-modal encoder for masked language modelling."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tbps.model.cross_modal import CrossModalEncoder


@final
class ProjectionHead(nn.Module):
    """Projection head of SimCLR on unnormalised embeddings: a two-layer MLP (D, hidden, D) with ReLU."""

    def __init__(self, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim))

    def forward(self, features: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Projects (n, D) -> (n, D)."""
        projected: Tensor = self.layers(features)
        return projected


@final
class IdentityClassifier(nn.Module):
    """Linear classifier of identities, shared by both modalities; `identities` is their number."""

    def __init__(self, dim: int, identities: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, identities)
        nn.init.normal_(self.linear.weight, std=0.001)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Float[Tensor, "n D"]) -> Float[Tensor, "n C"]:
        """Returns logits (n, identities)."""
        logits: Tensor = self.linear(features)
        return logits


@final
class Heads(nn.Module):
    """Heads of the enabled losses; the others are None."""

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
    """Returns the classifier labels of identities: their positions among the sorted `known` identities."""
    return torch.searchsorted(known, identities)
