"""AdamW with two groups, weights that decay and 1-d parameters that do not; on request Muon for the layers' matrices."""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from tbps.config import Settings


class OptimizerSettings(Settings):
    """AdamW as in the paper; `clip_norm` limits the gradient's norm (None: no limit, as in the reference).

    `matrices` = "muon" gives the weight matrices inside the layers of both towers to Muon (Jordan et al. 2024), which learns
    from random weights in a fraction of AdamW's updates; everything else stays with AdamW. Muon's rate is `muon_rate_factor`
    times the schedule's, with its updates scaled to the size of AdamW's (Liu et al. 2025, "Muon is scalable").
    """

    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = Field(0.02, ge=0)
    clip_norm: float | None = None
    matrices: Literal["adamw", "muon"] = "adamw"
    muon_momentum: float = Field(0.95, ge=0, lt=1)
    muon_rate_factor: float = Field(1.0, gt=0)


def optimizers(model: nn.Module, settings: OptimizerSettings) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW, and Muon where asked for, over the parameters that require gradients; together they hold each of them once.

    The rate is set at every step: to the schedule's rate times a group's "factor".
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    by_muon = [p for name, p in trained.items() if settings.matrices == "muon" and p.ndim == 2 and ".layers." in name]
    taken = {id(p) for p in by_muon}
    rest = [p for p in trained.values() if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": settings.weight_decay, "factor": 1.0},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0, "factor": 1.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)
    if not by_muon:
        return (adamw,)
    group = {"params": by_muon, "factor": settings.muon_rate_factor}
    decay, momentum = settings.weight_decay, settings.muon_momentum
    muon = torch.optim.Muon([group], lr=0.0, weight_decay=decay, momentum=momentum, adjust_lr_fn="match_rms_adamw")
    return adamw, muon
