"""The gradient of a batch of any size in the memory of a small one (Gao et al., "Scaling Deep Contrastive Learning Batch Size under
Memory Limited Setup", 2021).

The losses compare every pair with every other, so a batch cannot simply be cut. But they see embeddings only: encode all parts
without gradients, take the gradient of the loss with respect to the embeddings, then encode every part once more with gradients
and pass those on. With the same dropout masks both times, the sum is the gradient of the whole batch.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Protocol

import torch
from torch import Tensor

from tbps.training.objective import Features, Losses


class Encode(Protocol):
    """Encodes one part, numbered from 0; `calm` and `words` as in `tbps.training.encode.encode`."""

    def __call__(self, part: int, *, calm: bool, words: bool) -> Features: ...


def backward(encode: Encode, parts: int, loss: Callable[[Features], Losses], mlm_weight: float, share: float) -> Losses:
    """Adds to the gradients of everything that `encode` and `loss` use, and returns the losses.

    `mlm_weight`: weight of `Features.mlm`, whose parts add up to the loss of the batch. `share`: what an MLM loss that is already
    divided by the words of all processes must be multiplied with, where gradients are averaged over processes.
    """
    if parts == 1:
        features = encode(0, calm=True, words=True)
        losses = loss(replace(features, mlm=None if features.mlm is None else features.mlm * share))
        torch.autograd.backward(losses.total)
        return losses
    with torch.no_grad():
        encoded = [encode(part, calm=True, words=False) for part in range(parts)]
    whole = _joined(encoded)
    losses = loss(whole)
    if losses.total.requires_grad:  # not where MLM is the only loss
        torch.autograd.backward(losses.total)
    words = torch.zeros_like(losses.total)
    start = 0
    for part, size in enumerate([len(features.image) for features in encoded]):
        features = encode(part, calm=False, words=True)
        outputs, gradients = _with_gradients(features, whole, slice(start, start + size))
        if features.mlm is not None:
            outputs.append(features.mlm)
            gradients.append(torch.full_like(features.mlm, mlm_weight * share))
            words = words + features.mlm.detach() * share
        torch.autograd.backward(outputs, gradients)
        start += size
    if mlm_weight == 0:
        return losses
    return Losses(losses.total.detach() + mlm_weight * words, {**losses.terms, "mlm": words})


def _joined(parts: list[Features]) -> Features:
    """All parts as one, as leaves that collect gradients."""
    joined = {}
    for name in (f.name for f in fields(Features) if f.name != "mlm"):
        tensors = [tensor for features in parts if (tensor := getattr(features, name)) is not None]
        joined[name] = torch.cat(tensors).requires_grad_(not name.startswith("calm")) if tensors else None
    return Features(**joined)


def _with_gradients(features: Features, whole: Features, rows: slice) -> tuple[list[Tensor], list[Tensor]]:
    outputs, gradients = [], []
    for name in (f.name for f in fields(Features) if f.name != "mlm"):
        output, leaf = getattr(features, name), getattr(whole, name)
        if output is not None and leaf.grad is not None:
            outputs.append(output)
            gradients.append(leaf.grad[rows])
    return outputs, gradients
