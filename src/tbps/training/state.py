"""State of a training run: everything needed to resume it.

Every random draw of training depends on (seed, epoch, step) only. So the state consists of weights, optimizer moments, loss scale,
step, history, and the labels of the epoch's pairs if they were divided. A resumed run equals an uninterrupted one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from tbps.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class EpochResult:
    """Validation metrics after an epoch, in percent. `step`: updates done so far."""

    epoch: int
    step: int
    loss: float
    r1: float
    r5: float
    r10: float
    map: float
    minp: float


@final
class TrainState:
    """Model, optimizers, loss scale, number of updates and results of the epochs."""

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], scaler: GradScaler) -> None:
        self.model = model
        self.optimizers = tuple(optimizers)
        self.scaler = scaler
        self.step = 0
        self.loss_sum, self.loss_count = 0.0, 0  # over this epoch's updates with a finite loss
        self.history: list[EpochResult] = []
        self.believed: torch.Tensor | None = None  # label of every training pair, for one epoch (`division`)

    @property
    def best(self) -> EpochResult | None:
        """The epoch with the highest validation Rank-1; of equal ones, the first."""
        return max(self.history, key=lambda result: (result.r1, -result.epoch), default=None)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return tensors by name: weights "model.NAME", moments "optimizer.WHICH.NUMBER.NAME", labels "believed"."""
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for which, optimizer in enumerate(self.optimizers):
            for number, moments in optimizer.state_dict()["state"].items():
                found |= {f"optimizer.{which}.{number}.{name}": tensor for name, tensor in moments.items()}
        return found if self.believed is None else found | {"believed": self.believed}

    def facts(self) -> dict[str, Any]:
        """Return everything except tensors, as values for JSON."""
        return {
            "step": self.step,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "scaler": self.scaler.state_dict(),
            "history": [asdict(result) for result in self.history],
        }

    def restore(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Restore the results of `tensors` and `facts`. Raises CheckpointError if they belong to another model."""
        weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        moments: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in self.optimizers]
        try:
            for name, tensor in tensors.items():
                if name.startswith("optimizer."):
                    _, which, number, key = name.split(".")
                    moments[int(which)].setdefault(int(number), {})[key] = tensor
            self.model.load_state_dict(weights)
            for optimizer, state in zip(self.optimizers, moments, strict=True):
                optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
            self.scaler.load_state_dict(facts["scaler"])
            self.step, self.loss_sum, self.loss_count = int(facts["step"]), float(facts["loss_sum"]), int(facts["loss_count"])
            self.history = [EpochResult(**result) for result in facts["history"]]
            self.believed = tensors.get("believed")
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
            raise CheckpointError(f"the checkpoint belongs to another model or version: {error}") from error
