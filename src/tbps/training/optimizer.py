"""Optimizers: AdamW with weight decay for matrices only, IRRA's Adam, and Muon for matrices inside the layers.

All optimizers of a run are stepped together (`update_together`), which also undoes the loss scale of float16.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.amp.grad_scaler import GradScaler

from tbps.config import Settings


class OptimizerSettings(Settings):
    """Optimizer and learning rates of groups of parameters; the defaults are the paper's AdamW."""

    earlier: ClassVar[Mapping[str, Any]] = {"algorithm": "adamw", "groups": "tbps", "bias_rate_factor": 1.0}

    algorithm: Literal["adamw", "adam"] = "adamw"
    """Algorithm: "adamw" subtracts the weight decay from the weight; "adam" adds it to the gradient (torch's `Adam`)."""
    groups: Literal["tbps", "irra"] = "tbps"
    """Parameters with weight decay: "tbps", only matrices; "irra", all but biases, whose rate has the factor `bias_rate_factor`.

    "irra" is the grouping of IRRA's `solver/build.py`: biases of the identity classifier and of the head that predicts words have
    the factor `head_rate_factor`, and the three norms around the cross-modal encoder have the towers' rate.
    """
    bias_rate_factor: float = Field(1.0, gt=0)
    """Learning rate of biases relative to the schedule's, with `groups` = "irra"."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay rates of Adam's two moments."""
    eps: float = 1e-8
    """Number added to the denominator of Adam's update."""
    weight_decay: float = Field(0.02, ge=0)
    """Weight decay."""
    clip_norm: float | None = None
    """Norm to which the whole gradient is clipped; null for no limit, as in the reference."""
    matrices: Literal["adamw", "muon"] = "adamw"
    """Optimizer of the weight matrices inside the layers of both towers: "adamw" (that is, `algorithm`) or "muon".

    Muon (Jordan et al. 2024) learns from random weights in a fraction of AdamW's updates. Its updates are scaled to the size of
    AdamW's (Liu et al. 2025, "Muon is scalable").
    """
    muon_momentum: float = Field(0.95, ge=0, lt=1)
    """Momentum of Muon."""
    muon_rate_factor: float = Field(1.0, gt=0)
    """Learning rate of Muon relative to the schedule's."""
    head_rate_factor: float = Field(5.0, gt=0)
    """Learning rate, relative to the schedule's, of the identity classifier and the cross-modal encoder."""


def optimizers(
    model: nn.Module, settings: OptimizerSettings, factors: Mapping[nn.Parameter, float] | None = None
) -> tuple[torch.optim.Optimizer, ...]:
    """Make AdamW or Adam, and Muon if enabled; every parameter that requires gradients belongs to exactly one of them.

    The training loop sets every group's rate to the schedule's rate times the group's "factor". `factors`: rate factors of
    parameters; 1 for parameters that are missing.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    own = {id(p): factor for p, factor in (factors or {}).items()}
    adamw: dict[tuple[float, float], list[nn.Parameter]] = {}
    muon: dict[float, list[nn.Parameter]] = {}
    for name, parameter in trained:
        factor = own.get(id(parameter), 1.0)
        decays = not is_bias(name) if settings.groups == "irra" else parameter.ndim > 1
        if settings.matrices == "muon" and parameter.ndim == 2 and ".layers." in name:
            muon.setdefault(factor * settings.muon_rate_factor, []).append(parameter)
        else:
            adamw.setdefault((settings.weight_decay if decays else 0.0, factor), []).append(parameter)
    groups = [{"params": held, "weight_decay": decay, "factor": factor} for (decay, factor), held in adamw.items()]
    adam = torch.optim.AdamW if settings.algorithm == "adamw" else torch.optim.Adam
    made: list[torch.optim.Optimizer] = [adam(groups, lr=0.0, betas=settings.betas, eps=settings.eps, fused=True)]
    if muon:
        turned = [{"params": held, "factor": factor} for factor, held in muon.items()]
        decay, momentum = settings.weight_decay, settings.muon_momentum
        made.append(torch.optim.Muon(turned, lr=0.0, weight_decay=decay, momentum=momentum, adjust_lr_fn="match_rms_adamw"))
    return tuple(made)


def is_bias(name: str) -> bool:
    """Whether IRRA's code treats a parameter of this name as a bias."""
    return "bias" in name.rpartition(".")[2]


def update_together(made: Sequence[torch.optim.Optimizer], scaler: GradScaler, clip_norm: float | None) -> bool:
    """Update all parameters and clear their gradients; returns False if the update was skipped.

    With an enabled `scaler` (float16) the gradients are those of the scaled loss, and are divided by the scale before clipping. If
    one of them overflowed, no parameter changes and the scale is halved; after 2,000 updates without overflow it doubles. Processes
    with the same gradients keep the same scale.
    """
    learned = [p for optimizer in made for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    for optimizer in made:
        scaler.unscale_(optimizer)
    # `GradScaler.step` would decide for each optimizer separately; here an overflow must skip all of them.
    fits = not scaler.is_enabled() or bool(torch.stack([p.grad.isfinite().all() for p in learned]).all())
    if fits:
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(learned, clip_norm)
        for optimizer in made:
            optimizer.step()
    for optimizer in made:
        optimizer.zero_grad(set_to_none=True)
    scaler.update()
    return fits
