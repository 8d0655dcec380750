"""Functions on `transformers.CLIPModel`: construction, features of the two towers, dropout and locked layers for training."""

from typing import Annotated

import torch
from pydantic import Field
from transformers import CLIPConfig, CLIPModel
from transformers.initialization import no_init_weights

from tbps.config import Settings
from tbps.errors import SettingsError
from tbps.seeding import entropy
from tbps.transfer import send

_CAPTIONS_PER_RUN = 32  # at least this many captions per run


class TowerShape(Settings):
    """Shape of one transformer tower; the feed-forward layer is four times as wide."""

    width: int
    """Width of the layers; the feed-forward layer is four times as wide."""
    layers: int
    """Number of layers."""
    heads: int
    """Attention heads per layer."""


class ModelShape(Settings):
    """Shape of a two-tower model with random weights. `image_size` and `patch`: side in pixels."""

    image: TowerShape
    """Image tower."""
    text: TowerShape
    """Text tower."""
    image_size: int
    """Height and width of the input, in pixels."""
    patch: int
    """Height and width of a patch, in pixels."""
    vocabulary: int
    """Number of tokens."""
    context_length: int = 77
    """Largest number of tokens of a caption."""
    embedding: int = 512
    """Dimensions of the embeddings."""


def shape_config(shape: ModelShape) -> CLIPConfig:
    """Returns the configuration of a model of that shape.

    As in OpenAI's CLIP, the end token is the last of the vocabulary and also the padding token, and the start token is the one
    before it.
    """
    end = shape.vocabulary - 1
    return CLIPConfig(
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


def build(shape: ModelShape, seed: int) -> CLIPModel:
    """Builds a model of that shape with transformers' random initialisation; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(entropy(seed, "weights") & (2**63 - 1))
        return CLIPModel(shape_config(shape)).eval()


def _tower(shape: TowerShape) -> dict[str, int]:
    return {
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
    }


def unfilled(config: CLIPConfig) -> CLIPModel:
    """Builds towers with uninitialised weights, to be overwritten by loaded ones. Random initialisation takes ten times as long as
    loading.
    """
    with no_init_weights():
        return CLIPModel(config).eval()


def image_features(clip: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """Computes unnormalised image embeddings: (N, 3, H, W) normalised pixels -> (N, D).

    For another input size than the model's, the position embeddings are interpolated.
    """
    return project_image(clip, image_states(clip, pixels)[:, 0])


def image_states(clip: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """Computes the states of the last layer: (N, 3, H, W) normalised pixels -> (N, 1 + patches, width), the class token first."""
    size = clip.config.vision_config.image_size
    resized = tuple(pixels.shape[-2:]) != (size, size)
    states: torch.Tensor = clip.vision_model(pixel_values=pixels, interpolate_pos_encoding=resized).last_hidden_state
    return states


def project_image(clip: CLIPModel, states: torch.Tensor) -> torch.Tensor:
    """Projects states of the image tower: (..., width) -> (..., D). The projected class token is the image embedding; masked
    language modelling attends to all projected tokens.
    """
    projected: torch.Tensor = clip.visual_projection(clip.vision_model.post_layernorm(states))
    return projected


def text_features(clip: CLIPModel, tokens: torch.Tensor) -> torch.Tensor:
    """Computes unnormalised text embeddings: (N, L) token ids, padded after the end token -> (N, D).

    No padding mask is needed: attention is causal, and the embedding is read at the first end token.
    """
    features: torch.Tensor = clip.text_projection(clip.text_model(input_ids=tokens).pooler_output)
    return features


def text_tokens(clip: CLIPModel, tokens: torch.Tensor) -> torch.Tensor:
    """Projects every token to the embedding space, for masked language modelling: (N, L) token ids -> (N, L, D)."""
    projected: torch.Tensor = clip.text_projection(clip.text_model(input_ids=tokens).last_hidden_state)
    return projected


def text_features_in_parts(clip: CLIPModel, tokens: torch.Tensor, parts: int) -> torch.Tensor:
    """Computes `text_features` of (N, L) tokens in up to `parts` runs over captions of similar length. `tokens` is on the CPU.

    Each run is truncated to its longest caption, which omits only positions after the end tokens, so the embeddings are the same;
    they are returned in the order of `tokens`. The end token has the highest id, as in OpenAI's vocabulary, so it is the first
    maximum of a row. Small batches use fewer runs, since each run computes a gradient of every weight, including the whole token
    embedding.
    """
    parts = max(1, min(parts, len(tokens) // _CAPTIONS_PER_RUN))
    lengths = tokens.argmax(dim=1) + 1
    order = lengths.argsort(stable=True)
    device = clip.logit_scale.device
    runs = [text_features(clip, send(tokens[rows, : int(lengths[rows].max())], device)) for rows in order.chunk(parts)]
    return torch.cat(runs)[send(order.argsort(), device)]


def choose_attention(clip: CLIPModel) -> None:
    """Selects the attention implementation for training: fused on a GPU, plain on a CPU, where the fused backward pass is slower
    (`benchmarks/training.py`).
    """
    clip.set_attn_implementation("eager" if clip.logit_scale.device.type == "cpu" else "sdpa")


def choose_products(tf32: bool) -> None:
    """Sets whether a GPU multiplies float32 in TF32 (10-bit mantissa). By default PyTorch uses TF32 in convolutions only."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32


def set_text_attention_dropout(clip: CLIPModel, probability: float) -> None:
    """Sets dropout on the self-attention probabilities of the text tower only (TBPS-CLIP, trick 2)."""
    for layer in clip.text_model.encoder.layers:
        layer.self_attn.dropout = probability


Layers = tuple[Annotated[int, Field(ge=1)], ...]
"""Numbers of layers; 1 is the lowest."""


class LockSettings(Settings):
    """Locked (frozen) parameters of the towers. TBPS-CLIP, trick 3, locks the patch projection.

    `image_layers`, `text_layers`: a number n locks the n lowest layers and the embeddings below them; a list locks only the layers
    with these numbers. `rate_factor`: 0 freezes the locked parameters; a value between 0 and 1 trains them at a reduced rate
    instead.
    """

    patch_projection: bool = True
    """Whether the patch projection of the image tower is locked."""
    image_layers: Annotated[int, Field(ge=0)] | Layers = 0
    """Locked layers of the image tower: the number of lowest layers, locked with the embeddings, or a list of numbers from 1."""
    text_layers: Annotated[int, Field(ge=0)] | Layers = 0
    """Locked layers of the text tower: the number of lowest layers, locked with the embeddings, or a list of numbers from 1."""
    rate_factor: float = Field(0.0, ge=0, le=1)
    """Learning rate of locked parameters relative to the schedule's; 0 leaves them unchanged."""


def bottom_parameters(clip: CLIPModel, settings: LockSettings) -> list[torch.nn.Parameter]:
    """Returns the parameters that `settings` lock, each once. Raises SettingsError for more layers than a tower has."""
    image, text = clip.vision_model, clip.text_model
    modules = [image.embeddings.patch_embedding] if settings.patch_projection else []
    for name, wanted, tower, below in (
        ("image", settings.image_layers, image, (image.embeddings, image.pre_layrnorm)),
        ("text", settings.text_layers, text, (text.embeddings,)),
    ):
        layers, numbers = tower.encoder.layers, range(1, wanted + 1) if isinstance(wanted, int) else wanted
        if max(numbers, default=0) > len(layers):
            raise SettingsError(f"lock.{name}_layers = {wanted}, but the {name} tower has {len(layers)} layers")
        modules += [*(below if isinstance(wanted, int) and wanted else ()), *(layers[number - 1] for number in numbers)]
    return list(dict.fromkeys(parameter for module in modules for parameter in module.parameters()))
