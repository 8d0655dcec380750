"""Structural changes to the towers: remove or interpolate one module, drop layers, make a narrower copy.

A module is the self-attention or the feed-forward part of one layer together with the norm before it, or the whole layer
(TBPS-CLIP: compression probes). The functions return ordinary `CLIPModel` objects; the context managers restore the weights that
they change.
"""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from tbps.config import Settings
from tbps.errors import ModelError, SettingsError
from tbps.model.clip import Layers
from tbps.model.few_shot import few_shot_of

Tower = Literal["image", "text"]
ModulePart = Literal["attention", "feed_forward", "layer"]
PARTS: tuple[ModulePart, ...] = ("attention", "feed_forward", "layer")

_TOWERS = {"image": "vision_model", "text": "text_model"}
_INSIDE: dict[ModulePart, tuple[str, ...]] = {
    "attention": ("self_attn", "layer_norm1"),
    "feed_forward": ("mlp", "layer_norm2"),
    "layer": ("self_attn", "layer_norm1", "mlp", "layer_norm2"),
}
_OUTPUTS: dict[ModulePart, tuple[str, ...]] = {
    "attention": ("self_attn.out_proj",),
    "feed_forward": ("mlp.fc2",),
    "layer": ("self_attn.out_proj", "mlp.fc2"),
}


class PruneSettings(Settings):
    """Parts of the start model to remove.

    `image_layers`, `text_layers`: numbers (from 1) of layers to drop. `depth`: share of the remaining layers of each tower to keep,
    evenly spaced from the first to the last. `width`: share of attention heads, channels and feed-forward units to keep, those with
    the largest weights.
    """

    image_layers: Layers = ()
    """Layers of the image tower to drop, numbered from 1."""
    text_layers: Layers = ()
    """Layers of the text tower to drop, numbered from 1."""
    depth: float = Field(1.0, gt=0, le=1)
    """Share of the remaining layers of each tower to keep, evenly spaced."""
    width: float = Field(1.0, gt=0, le=1)
    """Share of attention heads, channels and feed-forward units to keep, those with the largest weights."""


@dataclass(frozen=True, slots=True)
class Module:
    """One module of a tower; `layer` counts from 1, the lowest."""

    tower: Tower
    layer: int
    part: ModulePart

    def __str__(self) -> str:
        return f"{self.tower} layer {self.layer} {self.part.replace('_', '-')}"


def modules(clip: CLIPModel) -> list[Module]:
    """Lists all modules of both towers, ordered by tower and layer."""
    depths = {tower: len(layers_of(clip, tower)) for tower in _TOWERS}
    return [Module(tower, layer + 1, part) for tower in ("image", "text") for layer in range(depths[tower]) for part in PARTS]


def layers_of(clip: CLIPModel, tower: str) -> Any:
    """Returns the layers of a tower, lowest first."""
    return getattr(clip, _TOWERS[tower]).encoder.layers


def weights_of(clip: CLIPModel, module: Module) -> dict[str, Tensor]:
    """Returns the parameters of a module by their names in the model's state; changing them in place changes the model."""
    prefix = f"{_TOWERS[module.tower]}.encoder.layers.{module.layer - 1}."
    inside = tuple(f"{prefix}{name}." for name in _INSIDE[module.part])
    found = {name: parameter.data for name, parameter in clip.named_parameters() if name.startswith(inside)}
    if not found:
        raise SettingsError(f"there is no {module}: the {module.tower} tower has {len(layers_of(clip, module.tower))} layers")
    return found


def pruned_config(config: CLIPConfig, settings: PruneSettings) -> CLIPConfig:
    """Returns the configuration of the model that `pruned` would return. Raises as `pruned`."""
    made = copy.deepcopy(config)
    for tower, shape, numbers in (
        ("image", made.vision_config, settings.image_layers),
        ("text", made.text_config, settings.text_layers),
    ):
        kept = _kept(tower, shape.num_hidden_layers, numbers)
        shape.num_hidden_layers = _share_of(len(kept), settings.depth)
        _narrow(shape, _share_of(shape.num_attention_heads, settings.width))
    return made


def pruned(clip: CLIPModel, settings: PruneSettings) -> CLIPModel:
    """Returns a copy without the layers and channels that `settings` remove.

    Raises SettingsError for layers that do not exist, ModelError as `narrowed`.
    """
    made = without_layers(clip, settings.image_layers, settings.text_layers)
    made = without_layers(made, *(_between(len(layers_of(made, tower)), settings.depth) for tower in _TOWERS))
    if settings.width == 1:
        return made
    shapes = (made.config.vision_config, made.config.text_config)
    return narrowed(made, *(_share_of(shape.num_attention_heads, settings.width) for shape in shapes))


def _share_of(count: int, share: float) -> int:
    """Returns that share of a count, at least 1; halves are rounded up."""
    return max(1, int(share * count + 0.5))


def _between(depth: int, share: float) -> list[int]:
    """Returns the numbers of the layers to drop so that a share of the layers remains, evenly spaced, including first and last."""
    kept = np.rint(np.linspace(1, depth, _share_of(depth, share))).astype(int).tolist()
    return sorted(set(range(1, depth + 1)) - set(kept))


@contextmanager
def removed(clip: CLIPModel, module: Module) -> Iterator[None]:
    """Removes a module inside the `with` block by setting its last linear layer to 0, so that only the residual path remains."""
    prefix = f"{_TOWERS[module.tower]}.encoder.layers.{module.layer - 1}."
    ends = tuple(f"{prefix}{name}." for name in _OUTPUTS[module.part])
    with _restored({name: data for name, data in weights_of(clip, module).items() if name.startswith(ends)}) as outputs:
        for output in outputs.values():
            output.zero_()
        yield


@contextmanager
def led_back(clip: CLIPModel, module: Module, start: Mapping[str, Tensor], share: float) -> Iterator[None]:
    """Interpolates a module's weights inside the `with` block: (1 - share) * start + share * own (TBPS-CLIP: C2, share = a)."""
    with _restored(weights_of(clip, module)) as weights:
        for name, data in weights.items():
            data.copy_(torch.lerp(start[name].to(data), data, share))
        yield


@contextmanager
def _restored(weights: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    kept = {name: data.clone() for name, data in weights.items()}
    try:
        yield weights
    finally:
        for name, data in weights.items():
            data.copy_(kept[name])


def without_layers(clip: CLIPModel, image: Collection[int] = (), text: Collection[int] = ()) -> CLIPModel:
    """Returns a copy without the layers numbered in `image` and `text` (from 1). Raises SettingsError for
    layers that do not exist.
    """
    dropped: dict[str, Collection[int]] = {"image": image, "text": text}
    made = copy.deepcopy(clip)
    for tower, numbers in dropped.items():
        stack = getattr(made, _TOWERS[tower])
        layers = stack.encoder.layers
        kept = [layers[number - 1] for number in _kept(tower, len(layers), numbers)]
        stack.encoder.layers = torch.nn.ModuleList(kept)
        config = made.config.vision_config if tower == "image" else made.config.text_config
        config.num_hidden_layers = stack.config.num_hidden_layers = len(kept)
    return made


def _kept(tower: str, depth: int, dropped: Collection[int]) -> list[int]:
    """Returns the numbers of the layers that remain. Raises SettingsError if a dropped one does not exist or none remain."""
    kept = [number for number in range(1, depth + 1) if number not in dropped]
    wrong = sorted(set(dropped) - set(range(1, depth + 1)))
    if wrong or not kept:
        reason = f"layers {wrong} do not exist" if wrong else "none would be left"
        raise SettingsError(f"cannot drop layers {sorted(dropped)} of the {tower} tower, which has {depth}: {reason}")
    return kept


def narrowed(clip: CLIPModel, image_heads: int, text_heads: int) -> CLIPModel:
    """Returns a narrower copy with `image_heads` and `text_heads` attention heads per layer.

    Tower width and feed-forward layers shrink in proportion. The heads and feed-forward units of each layer and the channels of
    each tower with the largest weights are kept, with unchanged values. The copy is a starting point for distillation, not a
    finished model, since its norms are computed over fewer channels. Raises SettingsError if a number of heads is 0 or larger than
    the model's; ModelError for a model with a learned prompt or adapter, which would not fit the narrower towers.
    """
    if few_shot_of(clip) is not None:
        raise ModelError(
            "a model with a learned prompt or adapter cannot be made narrower; narrow the backbone first (a run without few_shot), "
            "or keep the width with prune.width=1"
        )
    state, config = clip.state_dict(), copy.deepcopy(clip.config)
    made: dict[str, Tensor] = {"logit_scale": state["logit_scale"]}
    for tower, heads, projection in (("image", image_heads, "visual_projection"), ("text", text_heads, "text_projection")):
        shape = config.vision_config if tower == "image" else config.text_config
        if not 1 <= heads <= shape.num_attention_heads:
            raise SettingsError(f"{heads} heads for the {tower} tower, which has {shape.num_attention_heads}")
        prefix = f"{_TOWERS[tower]}."
        own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        head_width = shape.hidden_size // shape.num_attention_heads
        _narrow(shape, heads)
        units, channels = shape.intermediate_size, _largest(_written(own), shape.hidden_size)
        for layer in range(shape.num_hidden_layers):
            inside = f"encoder.layers.{layer}."
            rows = _rows_of_heads(own, inside, head_width, heads)
            kept = _largest(own[f"{inside}mlp.fc1.weight"].norm(dim=1) * own[f"{inside}mlp.fc2.weight"].norm(dim=0), units)
            own |= _cut_layer(own, inside, rows, kept)
        made |= {f"{prefix}{name}": _cut_channels(name, tensor, channels) for name, tensor in own.items()}
        made[f"{projection}.weight"] = state[f"{projection}.weight"][:, channels]
    narrow = CLIPModel(config)
    narrow.load_state_dict({name: tensor.contiguous() for name, tensor in made.items()})
    return narrow.to(clip.logit_scale.device).eval()


def _narrow(shape: CLIPTextConfig | CLIPVisionConfig, heads: int) -> None:
    """Changes the configuration of a tower in place to `heads` heads, with width and feed-forward layer in proportion."""
    whole = shape.num_attention_heads
    shape.hidden_size, shape.intermediate_size = shape.hidden_size // whole * heads, shape.intermediate_size * heads // whole
    shape.num_attention_heads = heads


_WRITERS = ("embedding.weight", "self_attn.out_proj.weight", "mlp.fc2.weight")  # weights that write to the channels of a tower


def _largest(importance: Tensor, count: int) -> Tensor:
    """Returns the positions of the `count` largest values, in ascending order of position."""
    return importance.topk(count).indices.sort().values


def _written(own: Mapping[str, Tensor]) -> Tensor:
    """Returns the importance of each channel, (width,): the L2 norm of all weights of embeddings and layers that write to it."""
    squares = []
    for name, tensor in own.items():
        if name.endswith(_WRITERS):
            by_channel = tensor if tensor.ndim == 4 or "encoder" in name else tensor.T
            squares.append(by_channel.flatten(1).square().sum(1))
    return torch.stack(squares).sum(0).sqrt()


def _rows_of_heads(own: Mapping[str, Tensor], inside: str, head_width: int, heads: int) -> Tensor:
    """Returns the rows of the attention matrices that belong to the `heads` largest heads."""
    per_row = own[f"{inside}self_attn.v_proj.weight"].norm(dim=1) * own[f"{inside}self_attn.out_proj.weight"].norm(dim=0)
    chosen = _largest(per_row.view(-1, head_width).sum(1), heads)
    return (chosen[:, None] * head_width + torch.arange(head_width, device=chosen.device)).flatten()


def _cut_layer(own: Mapping[str, Tensor], inside: str, rows: Tensor, units: Tensor) -> dict[str, Tensor]:
    """Returns a layer's matrices reduced to the given attention rows and feed-forward units, with all channels."""
    kept = {f"self_attn.{name}.": rows for name in ("q_proj", "k_proj", "v_proj")} | {"mlp.fc1.": units}
    cut = {f"{inside}{name}{end}": own[f"{inside}{name}{end}"][at] for name, at in kept.items() for end in ("weight", "bias")}
    for name, at in (("self_attn.out_proj.weight", rows), ("mlp.fc2.weight", units)):
        cut[f"{inside}{name}"] = own[f"{inside}{name}"][:, at]
    return cut


_READERS = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "fc1.weight")
_INNER = ("q_proj.bias", "k_proj.bias", "v_proj.bias", "fc1.bias")


def _cut_channels(name: str, tensor: Tensor, channels: Tensor) -> Tensor:
    """Returns a tensor of a tower reduced to the given channels, on the axis that its name implies."""
    if name.endswith(_INNER):
        return tensor
    by_column = name.endswith(_READERS) or name.endswith(("token_embedding.weight", "position_embedding.weight"))
    return tensor[:, channels] if by_column else tensor[channels]
