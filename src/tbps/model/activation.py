"""QuickGELU, the activation of OpenAI's CLIP, for training: the same values in five passes over memory instead of eight."""

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import CLIPModel
from transformers.activations import QuickGELUActivation


class _QuickGELU(torch.autograd.Function):
    """x * sigmoid(1.702 x) is silu(1.702 x) / 1.702, so its slope is that of silu at 1.702 x. Only x is kept for the way back."""

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
    """x * sigmoid(1.702 x), to the bit as transformers computes it; gradients differ by rounding."""

    def forward(self, values: Tensor) -> Tensor:
        """The same shape."""
        activated: Tensor = _QuickGELU.apply(values)  # type: ignore[no-untyped-call]  # torch has no types here
        return activated


def choose_activation(clip: CLIPModel) -> None:
    """`QuickGELU` in both towers, where theirs is transformers' own."""
    for tower in (clip.vision_model, clip.text_model):
        for layer in tower.encoder.layers:
            if isinstance(layer.mlp.activation_fn, QuickGELUActivation):
                layer.mlp.activation_fn = QuickGELU()
