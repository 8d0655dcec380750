"""One seed, many independent named streams.

`generator(7, "mannequins", "person", 42)` always yields the same stream, whatever was drawn before it, in which process or in
which order: the names are hashed into the entropy of the stream. No code in `tbps` touches a global random state.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Name = str | int


def entropy(seed: int, *names: Name) -> int:
    """A 128-bit integer that depends on the seed and on every name."""
    text = "\x1f".join([str(seed), *(f"{type(n).__name__}:{n}" for n in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def generator(seed: int, *names: Name) -> np.random.Generator:
    """The NumPy stream of that seed and name."""
    return np.random.Generator(np.random.PCG64(entropy(seed, *names)))


def torch_generator(seed: int, *names: Name, device: "str | torch.device" = "cpu") -> "torch.Generator":
    """The PyTorch stream of that seed and name, on `device`."""
    import torch  # here, so that the processes which draw mannequins start without it

    return torch.Generator(device=device).manual_seed(entropy(seed, *names) & (2**63 - 1))
