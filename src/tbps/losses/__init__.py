"""Losses of text-based person search: pure functions of tensors and numbers.

Every loss of embeddings normalises them, computes in float32 under any autocast (float64 inputs stay float64), and accepts the
columns of several processes as `gathered=(image_all, text_all)`; see `tbps.losses.similarity`.
"""

from tbps.losses.classification import id_loss, mask_tokens, mlm_loss
from tbps.losses.contrastive import itc, n_itc, r_itc, sdm, tal
from tbps.losses.cyclic import c_itc
from tbps.losses.distillation import distill
from tbps.losses.self_supervised import nt_xent
from tbps.losses.targets import identity_targets

__all__ = [
    "c_itc",
    "distill",
    "id_loss",
    "identity_targets",
    "itc",
    "mask_tokens",
    "mlm_loss",
    "n_itc",
    "nt_xent",
    "r_itc",
    "sdm",
    "tal",
]
