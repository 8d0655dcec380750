"""Rows and columns of a loss: local rows are compared with the columns of all devices.

With global gradients (paper: trick 1) gradients flow through the gather into the columns of all processes, so that the mean of the
processes' gradients is the gradient of the loss over the whole global batch.

Without them a device treats the columns of other devices as constants. `LossSettings.shards` is the number of devices for which
this holds, so that one process can imitate several: it computes the loss of every shard of its rows, with the columns of the other
shards detached, and takes the mean. The gradient is the one that the devices would average.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tbps.distributed import gather, gather_with_gradient, rank, world_size
from tbps.errors import SettingsError
from tbps.training.objective.settings import LossSettings


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows of one device: part `number` of `count` equal parts of this process's rows.

    `constant`: whether columns other than its own are detached.
    """

    number: int
    count: int
    constant: bool

    def rows(self, whole: Tensor) -> Tensor:
        """The shard's part of the rows of this process."""
        return whole if self.count == 1 else whole[self._range(whole)]

    def columns(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor] | None:
        """Gather both tensors from all devices; None if there is only one device."""
        if world_size() == self.count == 1:
            return None
        if self.constant:
            return self._with_own_gradient(one), self._with_own_gradient(two)
        return gather_with_gradient(one), gather_with_gradient(two)

    def start(self, process_rows: int) -> int | None:
        """Column of the shard's first row, with `process_rows` rows per process; None if there is only one device."""
        if world_size() == self.count == 1:
            return None
        return rank() * process_rows + self.number * (process_rows // self.count)

    def _range(self, whole: Tensor) -> slice:
        size = len(whole) // self.count
        return slice(self.number * size, (self.number + 1) * size)

    def _with_own_gradient(self, whole: Tensor) -> Tensor:
        own, offset = self._range(whole), rank() * len(whole)
        everyone = gather(whole.detach())
        return torch.cat([everyone[: offset + own.start], whole[own], everyone[offset + own.stop :]])


def shards_of(pairs: int, settings: LossSettings) -> list[Shard]:
    """List the shards of this process with `pairs` rows. Raises SettingsError if `shards` does not divide the global batch."""
    if settings.global_gradients:
        return [Shard(0, 1, constant=False)]
    if settings.shards <= world_size():  # every process is one of the devices
        return [Shard(0, 1, constant=True)]
    count = settings.shards // world_size()
    if settings.shards % world_size() or pairs % count:
        raise SettingsError(
            f"losses.shards = {settings.shards} does not divide {pairs * world_size()} pairs on {world_size()} processes: "
            "change batch_size, or set losses.shards=1"
        )
    return [Shard(number, count, constant=True) for number in range(count)]
