"""Target distributions of the contrastive losses."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from tbps.errors import SettingsError


def identity_targets(
    row_ids: Shaped[Tensor | np.ndarray, " N"] | Sequence[int], column_ids: Shaped[Tensor | np.ndarray, " M"] | Sequence[int]
) -> Float[Tensor, "N M"]:
    """q^_ij = q_ij / sum_k q_ik with q_ij = 1 where row i and column j show one identity, else 0; float32, rows sum to 1.

    `ValueError` for a row whose identity is in no column: its target is undefined. On another device than the CPU, where asking
    would mean waiting, that row is NaN.
    """
    rows = torch.as_tensor(row_ids)
    columns = torch.as_tensor(column_ids, device=rows.device)
    if rows.ndim != 1 or columns.ndim != 1:
        raise ValueError(f"identities are one per row and column, not of shapes {tuple(rows.shape)} and {tuple(columns.shape)}")
    same = (rows[:, None] == columns[None, :]).float()
    count = same.sum(dim=1, keepdim=True)
    if rows.device.type == "cpu" and bool((count == 0).any()):
        row = int((count[:, 0] == 0).nonzero()[0])
        raise ValueError(f"identity {rows[row].item()} of row {row} is in no column")
    return same / count


def soften(targets: Float[Tensor, "n M"], logits: Float[Tensor, "n M"], alpha: float) -> Float[Tensor, "n M"]:
    """alpha * softmax(logits) + (1 - alpha) * targets, without gradient into the logits (paper: trick 4, soft labels)."""
    if not 0.0 <= alpha <= 1.0:
        raise SettingsError(f"alpha is the weight of the model's own softmax, between 0 and 1, not {alpha}")
    targets = targets.to(logits.dtype)
    if alpha == 0.0:
        return targets
    return alpha * logits.detach().softmax(dim=1) + (1.0 - alpha) * targets
