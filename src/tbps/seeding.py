"""Independent random number generators derived from one seed and a list of names.

`generator(7, "mannequins", "person", 42)` always returns the same stream, in every process and in any order of calls, because
the seed and the names are hashed to the state of the generator. No code in `tbps` changes a global random state.
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
    """NumPy generator for a seed and names."""
    return np.random.Generator(np.random.PCG64(entropy(seed, *names)))


def torch_generator(seed: int, *names: Name, device: "str | torch.device" = "cpu") -> "torch.Generator":
    """PyTorch generator for a seed and names, on `device`."""
    import torch  # imported here so that processes that only draw mannequins do not load torch

    return torch.Generator(device=device).manual_seed(entropy(seed, *names) & (2**63 - 1))
