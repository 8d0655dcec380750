"""AdamW with two groups: weights that decay, and biases, norms and other 1-d parameters that do not."""

import torch
from pydantic import Field
from torch import nn

from tbps.config import Settings


class OptimizerSettings(Settings):
    """AdamW as in the paper; `clip_norm` limits the gradient's norm (None: no limit, as in the reference)."""

    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = Field(0.02, ge=0)
    clip_norm: float | None = None


def adamw(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """The optimizer over the parameters that require gradients; its learning rate is set at every step."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)
