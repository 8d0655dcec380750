"""Non-blocking copies of tensors from the host to a device.

`tensor.to("cuda")` waits until the device has finished all earlier work. A non-blocking copy from pinned memory is queued like any
other operation.
"""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns `tensor` on `device`; the same object if it is on that device already."""
    if tensor.device == device or tensor.device.type != "cpu":
        return tensor.to(device)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
