"""Communication between the processes of a training run. Without a launcher there is one process and nothing is sent."""

import os

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather


def world_size() -> int:
    """Number of processes of the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def start(device: str) -> str:
    """Join the processes that `torchrun` started, and return the device of this process.

    Uses NCCL on CUDA, with one device per process, and gloo otherwise. Does nothing without `torchrun`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return device
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return device


def stop() -> None:
    """Leave the process group; does nothing without `torchrun`."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until all processes have called this."""
    if world_size() > 1:
        dist.barrier()


def gather(local: torch.Tensor) -> torch.Tensor:
    """Concatenate the (n, ...) tensors of all processes in rank order to (n * world_size, ...), without gradients."""
    if world_size() == 1:
        return local
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local.contiguous())
    return torch.cat(parts)


def average(tensors: list[torch.Tensor]) -> None:
    """Replace every tensor by its mean over the processes, with one collective per dtype."""
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
    """Sum over the processes; the tensor itself is overwritten."""
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def mean(value: torch.Tensor) -> torch.Tensor:
    """Mean over the processes, in a new tensor."""
    return total(value.clone()) / world_size() if world_size() > 1 else value


def anyone(wish: bool, device: torch.device) -> bool:
    """Whether `wish` is true on any process; all processes get the same answer."""
    return bool(total(torch.tensor(float(wish), device=device))) if world_size() > 1 else wish


def gather_with_gradient(local: torch.Tensor) -> torch.Tensor:
    """Concatenate the (n, ...) tensors of all processes in rank order; gradients flow back to every process (paper: trick 1)."""
    if world_size() == 1:
        return local
    gathered: torch.Tensor = torch.cat(all_gather(local))  # type: ignore[no-untyped-call]  # torch has no types here
    return gathered
