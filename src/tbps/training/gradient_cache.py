"""Gradient of a large batch in the memory of a small one (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory
Limited Setup", 2021).

The losses compare every pair with every other, so a batch cannot be split into independent parts. But they depend on the embeddings
only. So all parts are encoded without gradients, the gradient of the loss with respect to the embeddings is computed, and then
every part is encoded again and that gradient is propagated through it. With the same dropout masks in both passes, the sum over
parts is the gradient of the whole batch.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.profiler import record_function

from tbps.training.objective import Features, Losses

_VIEWS = tuple(f.name for f in fields(Features) if f.name != "mlm")
_CONSTANT = ("calm", "teacher")  # prefixes of views without gradients


class Encode(Protocol):
    """Encodes one part of the batch; see `tbps.training.encode.PartEncoder`."""

    def __call__(self, part: int, *, calm: bool, words: bool) -> Features: ...


def backward(
    encode: Encode,
    parts: int,
    loss: Callable[[Features], Losses],
    mlm_weight: float,
    share: float,
    scaled: Callable[[Tensor], Tensor] = lambda total: total,
) -> Losses:
    """Compute the losses of a batch, and accumulate their gradients in all parameters that `encode` and `loss` use.

    `mlm_weight`: weight of `Features.mlm`, whose values for the parts add up to the loss of the batch. `share`: factor of the MLM
    loss, the number of processes if gradients are averaged over them, because that loss is already divided by the words of all
    processes. `scaled`: multiplies a loss, and so every gradient, by the loss scale of float16; the returned losses are unscaled.
    """
    if parts == 1:
        features = encode(0, calm=True, words=True)
        losses = loss(replace(features, mlm=None if features.mlm is None else features.mlm * share))
        _differentiate(scaled(losses.total))
        return losses
    with torch.no_grad():
        encoded = [encode(part, calm=True, words=False) for part in range(parts)]
    whole = _joined(encoded)
    losses = loss(whole)
    if losses.total.requires_grad:  # false if MLM is the only loss
        _differentiate(scaled(losses.total))  # gradients of the leaves are scaled too, and with them those of the second pass
    words = torch.zeros_like(losses.total)
    start = 0
    for part, size in enumerate([len(features.image) for features in encoded]):
        features = encode(part, calm=False, words=True)
        outputs, gradients = _with_gradients(features, whole, slice(start, start + size))
        if features.mlm is not None:
            outputs.append(features.mlm)
            gradients.append(scaled(torch.full_like(features.mlm, mlm_weight * share)))
            words = words + features.mlm.detach() * share
        _differentiate(outputs, gradients)
        start += size
    if mlm_weight == 0:
        return losses
    return Losses(losses.total.detach() + mlm_weight * words, {**losses.terms, "mlm": words})


def _differentiate(outputs: Tensor | list[Tensor], gradients: list[Tensor] | None = None) -> None:
    with record_function("tbps: backward"):
        torch.autograd.backward(outputs, gradients)


def _joined(parts: list[Features]) -> Features:
    """Concatenate the parts to leaf tensors that collect gradients."""

    def leaf(name: str) -> Tensor | None:
        tensors = [tensor for features in parts if (tensor := getattr(features, name)) is not None]
        return torch.cat(tensors).requires_grad_(not name.startswith(_CONSTANT)) if tensors else None

    image, text = leaf("image"), leaf("text")
    assert image is not None and text is not None
    return Features(image, text, *(leaf(name) for name in _VIEWS[2:]))


def _with_gradients(features: Features, whole: Features, rows: slice) -> tuple[list[Tensor], list[Tensor]]:
    """Return the outputs of a part that require gradients, and the gradients of the corresponding rows of the leaves."""
    outputs, gradients = [], []
    for name in _VIEWS:
        output, leaf = getattr(features, name), getattr(whole, name)
        if output is not None and output.requires_grad and leaf.grad is not None:  # false for outputs of a locked tower
            outputs.append(output)
            gradients.append(leaf.grad[rows])
    return outputs, gradients
