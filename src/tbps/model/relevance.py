"""Attribution of an image's similarity to its patches by integrated gradients (Sundararajan et al., ICML 2017).

    carried(patch)  =  sum over its pixels of (x - b) * mean over a of  d s(b + a (x - b)) / d x,      s(x) = cos(f(x), v)

x: normalised image; b: mean grey, which is 0 after normalisation; f: image tower; v: the other embedding. The sum over all patches
is s(x) - s(b), up to the error of the mean over a finite number of steps.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPModel

from tbps.model.clip import image_features

STEPS = 8
_AT_ONCE = 4  # steps per batch; the activations of all steps of a batch are in memory at the same time


def carried_by_patches(
    clip: CLIPModel, pixels: Float[Tensor, "3 H W"], vector: Float[Tensor, " D"], steps: int = STEPS
) -> Float[Tensor, "rows columns"]:
    """Returns the signed contribution of every patch to the similarity. `pixels`: normalised. Leaves no gradients in the model."""
    patch: int = clip.config.vision_config.patch_size
    path = (torch.arange(steps, device=pixels.device) + 0.5) / steps
    slope = torch.zeros_like(pixels)
    for some in torch.split(path, _AT_ONCE):
        inputs = (some.view(-1, 1, 1, 1) * pixels).requires_grad_()  # (some, 3, H, W)
        with torch.enable_grad():
            scores = F.cosine_similarity(image_features(clip, inputs), vector[None])
            slope += torch.autograd.grad(scores.sum(), inputs)[0].sum(0)
    shares = slope / steps * pixels
    height, width = (side // patch * patch for side in shares.shape[1:])
    whole = shares[:, :height, :width].reshape(3, height // patch, patch, width // patch, patch)
    return whole.sum((0, 2, 4))
