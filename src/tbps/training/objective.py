"""The one place where views, losses and weights meet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field

from tbps.config import Settings
from tbps.distributed import gather_with_gradient, world_size
from tbps.losses import identity_targets, n_itc, r_itc


class LossSettings(Settings):
    """Weights of the losses; a loss of weight 0 is not computed.

    `soft_label` is the share alpha of the model's own softmax in the targets of N-ITC after its ramp (paper: trick 4).
    `r_itc_labels`: "reference" adds eps to the labels as published; "normalised" makes them a distribution again.
    """

    n_itc: float = Field(1.0, ge=0)
    r_itc: float = Field(1.0, ge=0)
    r_itc_eps: float = Field(1e-2, gt=0)
    r_itc_labels: Literal["reference", "normalised"] = "reference"
    soft_label: float = Field(0.5, ge=0, le=1)


@dataclass(frozen=True, slots=True)
class Losses:
    """The weighted total (scalar tensor with gradient) and every unweighted term, detached."""

    total: torch.Tensor
    terms: Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Features:
    """Un-normalised embeddings of a batch: image (N, D), text (N, D), with identities (N,)."""

    image: torch.Tensor
    text: torch.Tensor
    identities: torch.Tensor


def objective(features: Features, scale: torch.Tensor, alpha: float, settings: LossSettings) -> Losses:
    """The loss of the global batch: local rows against the columns of all processes, so that gradients are global (trick 1)."""
    gathered, columns = None, features.identities
    if world_size() > 1:
        gathered = (gather_with_gradient(features.image), gather_with_gradient(features.text))
        columns = gather_with_gradient(features.identities)
    targets = identity_targets(features.identities, columns)
    terms: dict[str, torch.Tensor] = {}
    total = features.image.new_zeros((), dtype=torch.float32)
    if settings.n_itc > 0:
        terms["n_itc"] = n_itc(features.image, features.text, targets, scale, alpha, gathered=gathered)
        total = total + settings.n_itc * terms["n_itc"]
    if settings.r_itc > 0:
        terms["r_itc"] = r_itc(
            features.image, features.text, targets, scale, settings.r_itc_eps, labels=settings.r_itc_labels, gathered=gathered
        )
        total = total + settings.r_itc * terms["r_itc"]
    return Losses(total, {name: term.detach() for name, term in terms.items()})
