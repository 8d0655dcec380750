"""QuickGELU, the activation of OpenAI's CLIP, implemented for training with five passes over memory instead of eight."""

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import CLIPModel
from transformers.activations import QuickGELUActivation


class _QuickGELU(torch.autograd.Function):
    """x * sigmoid(1.702 x) = silu(1.702 x) / 1.702, so its derivative is that of silu at 1.702 x. Only x is saved for the backward
    pass.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return (1.702 * values).sigmoid_().mul_(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        slope: Tensor = torch.ops.aten.silu_backward(gradient, 1.702 * values)
        return slope


@final
class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), bitwise equal to transformers' implementation; gradients differ by rounding."""

    def forward(self, values: Tensor) -> Tensor:
        """Applies the activation elementwise."""
        activated: Tensor = _QuickGELU.apply(values)  # type: ignore[no-untyped-call]  # torch has no types here
        return activated


def choose_activation(clip: CLIPModel) -> None:
    """Replaces transformers' QuickGELU by `QuickGELU` in both towers; other activations are left unchanged."""
    for tower in (clip.vision_model, clip.text_model):
        for layer in tower.encoder.layers:
            if isinstance(layer.mlp.activation_fn, QuickGELUActivation):
                layer.mlp.activation_fn = QuickGELU()
