"""Rank, world size and the gather with gradient; the identity on one process."""

import os

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather


def world_size() -> int:
    """Number of processes of this run; 1 without a launcher."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def start(device: str) -> str:
    """Joins the processes that `torchrun` started, if it did, and returns the device of this one.

    On CUDA with NCCL, one device a process; else with gloo. Started by hand this is one process and nothing happens.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return device
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return device


def stop() -> None:
    """Leaves the other processes."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Waits until every process is here."""
    if world_size() > 1:
        dist.barrier()


def gather(local: torch.Tensor) -> torch.Tensor:
    """(n, ...) a process -> (n * world_size, ...) in rank order, without gradients."""
    if world_size() == 1:
        return local
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


def average(tensors: list[torch.Tensor]) -> None:
    """Replaces every tensor by its mean over the processes, in one collective for each dtype."""
    if world_size() == 1:
        return
    for dtype in {tensor.dtype for tensor in tensors}:
        alike = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in alike])
        dist.all_reduce(flat)
        start = 0
        for tensor in alike:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor) / world_size())
            start += tensor.numel()


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum over the processes."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def mean(value: torch.Tensor) -> torch.Tensor:
    """The mean over the processes, in a new tensor."""
    return total(value.clone()) / world_size() if world_size() > 1 else value


def anyone(wish: bool, device: torch.device) -> bool:
    """Whether any process wishes to stop: all of them must end at the same update."""
    return bool(total(torch.tensor(float(wish), device=device))) if world_size() > 1 else wish


def gather_with_gradient(local: torch.Tensor) -> torch.Tensor:
    """(n, ...) a process -> (n * world_size, ...) in rank order; gradients flow back to every process (paper: trick 1)."""
    if world_size() == 1:
        return local
    gathered: torch.Tensor = torch.cat(all_gather(local))  # type: ignore[no-untyped-call]  # torch has no types here
    return gathered
