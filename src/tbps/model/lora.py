"""Low-rank adapters (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022), using the package peft.

y = W x + (alpha / rank) B A x, with W (out, in) frozen, A (rank, in) initialised at random and B (out, rank) with zeros. An adapted
model therefore starts equal to the original one. Merging replaces W by W + (alpha / rank) B A and removes the adapters.
"""

from typing import Literal

import torch
from pydantic import Field
from transformers import CLIPModel

from tbps.config import Settings
from tbps.optional import needed
from tbps.seeding import entropy


class LoraSettings(Settings):
    """Rank, scale and placement of the adapters.

    `matrices`: the four matrices of the attention (queries, keys, values, output), the two of the feed-forward layer, or all six.
    `dropout`: applied to the input of the adapters.
    """

    rank: int = Field(8, ge=1)
    """Rank of the adapters."""
    alpha: int = Field(16, ge=1)
    """Scale of the adapters: their output is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the adapters' inputs."""
    matrices: Literal["attention", "feed_forward", "both"] = "attention"
    """Matrices that get adapters: "attention" (queries, keys, values, output), "feed_forward" or "both"."""
    towers: Literal["image", "text", "both"] = "both"
    """Towers that get adapters."""


_MATRICES = {
    "attention": r"self_attn\.(q_proj|k_proj|v_proj|out_proj)",
    "feed_forward": r"mlp\.(fc1|fc2)",
    "both": r"(self_attn|mlp)\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
}
_TOWERS = {"image": "vision_model", "text": "text_model", "both": "(vision_model|text_model)"}


def add_adapters(clip: CLIPModel, settings: LoraSettings, seed: int) -> None:
    """Adds adapters to the towers in place; equal seeds give equal weights. Only the adapters and the temperature are trainable.

    Raises MissingDependencyError without the package peft.
    """
    peft = needed("peft", "LoRA", "lora")
    matrices = rf"{_TOWERS[settings.towers]}\.encoder\.layers\.\d+\.{_MATRICES[settings.matrices]}"
    config = peft.LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=matrices, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(entropy(seed, "adapters") & (2**63 - 1))
        peft.inject_adapter_in_model(config, clip)
    clip.logit_scale.requires_grad_(True)


def merge_adapters(clip: CLIPModel) -> CLIPModel:
    """Merges the adapters into the weights in place, W + (alpha / rank) B A, and returns the model."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(clip.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            clip.set_submodule(name, module.get_base_layer())
    del clip.peft_config
    return clip
