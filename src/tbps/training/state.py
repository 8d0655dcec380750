"""What a restart needs, as one object.

Every random draw of training depends on (seed, epoch, step) only, so that weights, optimizer moments, the loss scale, the step
and the history are the whole state, with the labels of the epoch's pairs where the weights at its beginning made them: a resumed
run equals an uninterrupted one.
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
    """Validation of one epoch: metrics in percent, `step` counts the updates done by then."""

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
    """Model, optimizers, loss scale, number of updates done, and the results of the epochs so far."""

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], scaler: GradScaler) -> None:
        self.model = model
        self.optimizers = tuple(optimizers)
        self.scaler = scaler
        self.step = 0
        self.loss_sum, self.loss_count = 0.0, 0  # over the updates of the current epoch whose loss was finite
        self.history: list[EpochResult] = []
        self.believed: torch.Tensor | None = None  # a label a training pair (`division`), valid for one epoch

    @property
    def best(self) -> EpochResult | None:
        """The epoch with the highest validation Rank-1, the earlier one on a tie."""
        return max(self.history, key=lambda result: (result.r1, -result.epoch), default=None)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights as "model.NAME", moments as "optimizer.WHICH.NUMBER.NAME", labels as "believed"."""
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for which, optimizer in enumerate(self.optimizers):
            for number, moments in optimizer.state_dict()["state"].items():
                found |= {f"optimizer.{which}.{number}.{name}": tensor for name, tensor in moments.items()}
        return found if self.believed is None else found | {"believed": self.believed}

    def facts(self) -> dict[str, Any]:
        """Everything else, as plain values for JSON."""
        return {
            "step": self.step,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "scaler": self.scaler.state_dict(),
            "history": [asdict(result) for result in self.history],
        }

    def restore(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Puts back what `tensors` and `facts` gave. Raises CheckpointError when they are another model's."""
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
