"""What a restart needs, as one object.

Every random draw of training depends on (seed, epoch, step) only, so that weights, optimizer moments, the step and the history
are the whole state: a resumed run equals an uninterrupted one.
"""

from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import nn

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
    """Model, optimizer, number of updates done, and the results of the epochs so far."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model = model
        self.optimizer = optimizer
        self.step = 0
        self.loss_sum = 0.0  # over the updates of the current epoch
        self.history: list[EpochResult] = []

    @property
    def best(self) -> EpochResult | None:
        """The epoch with the highest validation Rank-1, the earlier one on a tie."""
        return max(self.history, key=lambda result: (result.r1, -result.epoch), default=None)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights as "model.NAME", moments as "optimizer.NUMBER.NAME"."""
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
        return found

    def facts(self) -> dict[str, Any]:
        """Everything else, as plain values for JSON."""
        return {"step": self.step, "loss_sum": self.loss_sum, "history": [asdict(result) for result in self.history]}

    def restore(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Puts back what `tensors` and `facts` gave. Raises CheckpointError when they are another model's."""
        weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".")
                moments.setdefault(int(number), {})[key] = tensor
        try:
            self.model.load_state_dict(weights)
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
            self.step, self.loss_sum = int(facts["step"]), float(facts["loss_sum"])
            self.history = [EpochResult(**result) for result in facts["history"]]
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"the checkpoint belongs to another model or version: {error}") from error
