"""From the host to a device without waiting for it.

`tensor.to("cuda")` waits until the device has done everything it was given before. From pinned memory, and told not to wait, the
copy takes its place in the queue like any other operation.
"""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; the very same where it is there already."""
    if tensor.device == device or tensor.device.type != "cpu":
        return tensor.to(device)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
