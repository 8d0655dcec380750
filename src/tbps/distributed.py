"""Rank, world size and the gather with gradient; the identity on one process."""

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather


def world_size() -> int:
    """Number of processes of this run; 1 without a launcher."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather_with_gradient(local: torch.Tensor) -> torch.Tensor:
    """(n, ...) a process -> (n * world_size, ...) in rank order; gradients flow back to every process (paper: trick 1)."""
    if world_size() == 1:
        return local
    gathered: torch.Tensor = torch.cat(all_gather(local))  # type: ignore[no-untyped-call]  # torch has no types here
    return gathered
