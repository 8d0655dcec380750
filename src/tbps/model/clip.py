"""The two towers on `transformers.CLIPModel`: shapes of new models, features, and the tricks that touch layers."""

import torch
from transformers import CLIPConfig, CLIPModel

from tbps.config import Settings
from tbps.seeding import entropy


class TowerShape(Settings):
    """Width, depth and heads of one transformer tower; the feed-forward layer is four times as wide."""

    width: int
    layers: int
    heads: int


class ModelShape(Settings):
    """The shape of a two-tower model built from random weights. `image_size` and `patch` are in pixels (square)."""

    image: TowerShape
    text: TowerShape
    image_size: int
    patch: int
    vocabulary: int
    context_length: int = 77
    embedding: int = 512


def build(shape: ModelShape, seed: int) -> CLIPModel:
    """A model of that shape with transformers' own initialisation, the same for the same seed.

    The end token is the last of the vocabulary and also pads, the start token is the one before, as in OpenAI's CLIP.
    """
    end = shape.vocabulary - 1
    config = CLIPConfig(
        text_config={
            **_tower(shape.text),
            "vocab_size": shape.vocabulary,
            "max_position_embeddings": shape.context_length,
            "bos_token_id": end - 1,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config={**_tower(shape.image), "image_size": shape.image_size, "patch_size": shape.patch},
        projection_dim=shape.embedding,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(entropy(seed, "weights") & (2**63 - 1))
        return CLIPModel(config).eval()


def _tower(shape: TowerShape) -> dict[str, int]:
    return {
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
    }


def image_features(clip: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) normalised pixels -> (N, D) un-normalised embeddings; other sizes than the model's interpolate positions."""
    size = clip.config.vision_config.image_size
    resized = tuple(pixels.shape[-2:]) != (size, size)
    pooled = clip.vision_model(pixel_values=pixels, interpolate_pos_encoding=resized).pooler_output
    features: torch.Tensor = clip.visual_projection(pooled)
    return features


def text_features(clip: CLIPModel, tokens: torch.Tensor) -> torch.Tensor:
    """(N, L) token ids, padded behind the end token -> (N, D) un-normalised embeddings.

    No padding mask: attention is causal and the embedding is read at the first end token, which sees nothing behind it.
    """
    features: torch.Tensor = clip.text_projection(clip.text_model(input_ids=tokens).pooler_output)
    return features


def text_features_in_parts(clip: CLIPModel, tokens: torch.Tensor, parts: int) -> torch.Tensor:
    """`text_features` of (N, L) tokens on the CPU, shortest captions first in `parts` runs, each cut to its own longest caption.

    The same embeddings in the given order: a run shorter than L leaves out only what stands behind every end token. The end token
    has the highest id, as in OpenAI's vocabulary, so it is the first maximum of a row.
    """
    lengths = tokens.argmax(dim=1) + 1
    order = lengths.argsort(stable=True)
    device = clip.logit_scale.device
    runs = [text_features(clip, tokens[rows, : int(lengths[rows].max())].to(device)) for rows in order.chunk(parts)]
    return torch.cat(runs)[order.argsort().to(device)]


def choose_attention(clip: CLIPModel) -> None:
    """Attention for training: fused on a GPU, in plain steps on a CPU, where the fused backward pass is the slower one
    (`benchmarks/training.py`).
    """
    clip.set_attn_implementation("eager" if clip.logit_scale.device.type == "cpu" else "sdpa")


def set_text_attention_dropout(clip: CLIPModel, probability: float) -> None:
    """Dropout on the text tower's self-attention probabilities only (paper: trick 2)."""
    for layer in clip.text_model.encoder.layers:
        layer.self_attn.dropout = probability


def lock_patch_projection(clip: CLIPModel) -> None:
    """Freezes the image tower's patch projection (paper: trick 3)."""
    clip.vision_model.embeddings.patch_embedding.weight.requires_grad_(False)
