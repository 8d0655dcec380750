"""Target distributions of the contrastive losses.

q^_ij = q_ij / sum_k q_ik, with q_ij = 1 if row i and column j show the same identity, else 0
t_ij  = alpha p_ij + (1 - alpha) q^_ij, p without gradient (soft labels, paper: trick 4)
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from tbps.errors import SettingsError


def identity_targets(
    row_ids: Shaped[Tensor | np.ndarray, " N"] | Shaped[Tensor | np.ndarray, "N 2"] | Sequence[int],
    column_ids: Shaped[Tensor | np.ndarray, " M"] | Shaped[Tensor | np.ndarray, "M 2"] | Sequence[int],
) -> Float[Tensor, "N M"]:
    """Identity-normalised labels q^ in float32: 1 / k for each of the k columns with the row's identity, else 0.

    Mixed pairs have two identities each, in any order; one common identity is enough. Raises ValueError for a row whose identity is
    in no column. On devices other than the CPU, where the check would force a synchronisation, such a row is NaN instead.
    """
    rows = torch.as_tensor(row_ids)
    same = share_identity(rows, torch.as_tensor(column_ids, device=rows.device)).float()
    count = same.sum(dim=1, keepdim=True)
    if rows.device.type == "cpu" and bool((count == 0).any()):
        row = int((count[:, 0] == 0).nonzero()[0])
        raise ValueError(f"identity {rows[row].tolist()} of row {row} is in no column")
    return same / count


def share_identity(
    rows: Shaped[Tensor, " N"] | Shaped[Tensor, "N 2"], columns: Shaped[Tensor, " M"] | Shaped[Tensor, "M 2"]
) -> Bool[Tensor, "N M"]:
    """Compares identities: True where row i and column j share one. Rows and columns have one or two identities each."""
    if rows.ndim not in (1, 2) or columns.ndim not in (1, 2):
        shapes = f"{tuple(rows.shape)} and {tuple(columns.shape)}"
        raise ValueError(f"identities are one or two per row and column, not of shapes {shapes}")
    own, other = rows.reshape(len(rows), -1), columns.reshape(len(columns), -1)
    found = own[:, :1] == other[:, 0]
    for one, two in product(range(own.shape[1]), range(other.shape[1])):
        if one or two:
            found = found | (own[:, one, None] == other[:, two])
    return found


def soften(targets: Float[Tensor, "n M"], logits: Float[Tensor, "n M"], alpha: float) -> Float[Tensor, "n M"]:
    """Soft labels: alpha softmax(logits) + (1 - alpha) targets, without gradient into the logits (paper: trick 4)."""
    if not 0.0 <= alpha <= 1.0:
        raise SettingsError(f"alpha is the weight of the model's own softmax, between 0 and 1, not {alpha}")
    targets = targets.to(logits.dtype)
    if alpha == 0.0:
        return targets
    return alpha * logits.detach().softmax(dim=1) + (1.0 - alpha) * targets
