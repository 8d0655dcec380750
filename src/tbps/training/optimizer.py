"""AdamW with two groups, weights that decay and 1-d parameters that do not; on request IRRA's Adam, or Muon for the layers'
matrices.

And the update that they make together, with the loss scale of float16 taken off the gradients.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.amp.grad_scaler import GradScaler

from tbps.config import Settings


class OptimizerSettings(Settings):
    """AdamW as in the paper; `clip_norm` limits the gradient's norm (None: no limit, as in the reference).

    `matrices` = "muon" gives the weight matrices inside the layers of both towers to Muon (Jordan et al. 2024), which learns
    from random weights in a fraction of AdamW's updates; everything else stays with AdamW. Muon's rate is `muon_rate_factor`
    times the schedule's, with its updates scaled to the size of AdamW's (Liu et al. 2025, "Muon is scalable").
    `head_rate_factor` is that of the identity classifier and the cross-modal encoder, which start from random weights.

    `algorithm` = "adam" adds the decay to the gradient, before it is scaled by its moments (coupled, torch's `Adam`); "adamw" takes
    it off the weight. `groups` = "irra" is the grouping of IRRA's `solver/build.py`: all but biases decay, biases learn at
    `bias_rate_factor`, those of the classifier and of the head that predicts words at `head_rate_factor`, and the three norms
    around the cross-modal encoder as the towers do.
    """

    earlier: ClassVar[Mapping[str, Any]] = {"algorithm": "adamw", "groups": "tbps", "bias_rate_factor": 1.0}

    algorithm: Literal["adamw", "adam"] = "adamw"
    groups: Literal["tbps", "irra"] = "tbps"
    bias_rate_factor: float = Field(1.0, gt=0)
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = Field(0.02, ge=0)
    clip_norm: float | None = None
    matrices: Literal["adamw", "muon"] = "adamw"
    muon_momentum: float = Field(0.95, ge=0, lt=1)
    muon_rate_factor: float = Field(1.0, gt=0)
    head_rate_factor: float = Field(5.0, gt=0)


def optimizers(
    model: nn.Module, settings: OptimizerSettings, factors: Mapping[nn.Parameter, float] | None = None
) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW, and Muon where asked for, over the parameters that require gradients; together they hold each of them once.

    The rate is set at every step: to the schedule's rate times a group's "factor". `factors`: of parameters that learn at another
    rate than the rest; the biases of the towers and of all else are then as `settings.groups` has them.
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
    """Whether a parameter of that name is a bias, as IRRA tells it."""
    return "bias" in name.rpartition(".")[2]


def update_together(made: Sequence[torch.optim.Optimizer], scaler: GradScaler, clip_norm: float | None) -> bool:
    """One update of all parameters from their gradients, which are cleared; False where it was skipped.

    With an enabled `scaler` (float16) the gradients are those of the scaled loss: they are divided by the scale, once, before they
    are clipped. If one of them overflowed, no optimizer moves and the scale is halved; after 2,000 updates in a row it doubles.
    Processes with the same gradients decide alike and keep the same scale.
    """
    learned = [p for optimizer in made for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    for optimizer in made:
        scaler.unscale_(optimizer)
    # GradScaler.step would skip optimizer by optimizer, each by its own gradients
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
