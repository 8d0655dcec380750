"""Names and shapes of the tensors of OpenAI's CLIP, and their names in transformers' `CLIPModel`.

OpenAI, open_clip and, without their prefixes, the TBPS-CLIP reference and IRRA use the same tensor names. The shape of a model is
derived from its tensors; then every missing, unexpected or mis-shaped tensor is reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from tbps.errors import ModelError

IMAGE_POSITIONS = "vision_model.embeddings.position_embedding.weight"
TEXT_POSITIONS = "text_model.embeddings.position_embedding.weight"

# Width of the image tower -> width of its heads, for open_clip's ViT-H, ViT-g, ViT-G and ViT-e. All other heads have width 64.
_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104, 1792: 112}

_LAYER = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
_SINGLE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": IMAGE_POSITIONS,
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": TEXT_POSITIONS,
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = ("visual.proj", "text_projection")
# Tensors from which the shape is derived, with their number of dimensions.
_TELLING = {
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "visual.proj": 2,
    "token_embedding.weight": 2,
    "positional_embedding": 2,
    "text_projection": 2,
}


@final
@dataclass(frozen=True)
class _Tower:
    """Shape of one tower. `prefix` precedes its layers in OpenAI's names, `target` in transformers' names."""

    prefix: str
    target: str
    width: int
    layers: int
    heads: int
    hidden: int

    @staticmethod
    def of(state: Mapping[str, torch.Tensor], prefix: str, target: str, width: int, head_width: int) -> "_Tower":
        layers = {name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)}
        first = state.get(f"{prefix}0.mlp.c_fc.bias")
        return _Tower(prefix, target, width, len(layers), width // head_width, 4 * width if first is None else first.numel())

    def config(self, activation: str) -> dict[str, Any]:
        return {
            "hidden_size": self.width,
            "intermediate_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "hidden_act": activation,
        }

    def layout(self) -> dict[str, tuple[int, ...]]:
        width, hidden = self.width, self.hidden
        parts: dict[str, tuple[int, ...]] = {
            "ln_1": (width,),
            "attn.in_proj": (3 * width, width),
            "attn.out_proj": (width, width),
            "ln_2": (width,),
            "mlp.c_fc": (hidden, width),
            "mlp.c_proj": (width, hidden),
        }
        names: dict[str, tuple[int, ...]] = {}
        for layer in range(self.layers):
            for part, shape in parts.items():
                joint = "_" if part == "attn.in_proj" else "."
                names[f"{self.prefix}{layer}.{part}{joint}weight"] = shape
                names[f"{self.prefix}{layer}.{part}{joint}bias"] = shape[:1]
        return names


@final
@dataclass(frozen=True)
class Shape:
    """Shape of a CLIP model. `patch`: side of a patch in pixels; `patches`: their number, without the class token."""

    image: _Tower
    text: _Tower
    patch: int
    patches: int
    vocabulary: int
    context: int
    embedding: int

    @staticmethod
    def of(state: Mapping[str, torch.Tensor], path: Path) -> "Shape":
        """Derives the shape from the tensors. Raises ModelError when one of them is missing or cannot belong to a CLIP model."""
        faults = [f"missing {name}" for name in _TELLING if name not in state]
        faults += [
            f"{name} has {state[name].ndim} dimensions instead of {ndim}"
            for name, ndim in _TELLING.items()
            if name in state and state[name].ndim != ndim
        ]
        _refuse(faults, path)
        conv, tokens = state["visual.conv1.weight"], state["token_embedding.weight"]
        image, text = conv.shape[0], tokens.shape[1]
        head_width = _HEAD_WIDTHS.get(image, 64)
        faults = [f"{name} is empty" for name in _TELLING if not state[name].numel()]
        faults += [
            f"width {width} of the {tower} tower is not a multiple of {head}, the width of a head"
            for tower, width, head in (("image", image, head_width), ("text", text, 64))
            if width % head
        ]
        faults += ["visual.positional_embedding has no row for a patch"] if len(state["visual.positional_embedding"]) < 2 else []
        _refuse(faults, path)
        towers = (
            _Tower.of(state, "visual.transformer.resblocks.", "vision_model.encoder.layers.", image, head_width),
            _Tower.of(state, "transformer.resblocks.", "text_model.encoder.layers.", text, 64),
        )
        _refuse([f"missing every layer {tower.prefix}*" for tower in towers if not tower.layers], path)
        return Shape(
            *towers,
            patch=conv.shape[-1],
            patches=len(state["visual.positional_embedding"]) - 1,
            vocabulary=tokens.shape[0],
            context=len(state["positional_embedding"]),
            embedding=state["text_projection"].shape[1],
        )

    def config(self, activation: str) -> dict[str, Any]:
        """Returns the configuration for transformers; start and end token are the last two of the vocabulary,
        as in OpenAI's CLIP.
        """
        tokens = {"bos_token_id": self.vocabulary - 2, "eos_token_id": self.vocabulary - 1, "pad_token_id": self.vocabulary - 1}
        lengths = {"vocab_size": self.vocabulary, "max_position_embeddings": self.context, "projection_dim": self.embedding}
        return {
            "model_type": "clip",
            "vision_config": {**self.image.config(activation), "patch_size": self.patch, "projection_dim": self.embedding},
            "text_config": {**self.text.config(activation), **lengths, **tokens},
            "projection_dim": self.embedding,
        }

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Returns every tensor name of OpenAI's layout with its shape."""
        image, text = self.image.width, self.text.width
        norms = {"visual.ln_pre": image, "visual.ln_post": image, "ln_final": text}
        return {
            "visual.class_embedding": (image,),
            "visual.conv1.weight": (image, 3, self.patch, self.patch),
            "visual.positional_embedding": (1 + self.patches, image),
            "visual.proj": (image, self.embedding),
            "token_embedding.weight": (self.vocabulary, text),
            "positional_embedding": (self.context, text),
            "text_projection": (text, self.embedding),
            "logit_scale": (),
            **{f"{norm}.{part}": (width,) for norm, width in norms.items() for part in ("weight", "bias")},
            **self.image.layout(),
            **self.text.layout(),
        }


def check_layout(state: Mapping[str, torch.Tensor], shape: Shape, path: Path) -> None:
    """Raises ModelError that names every tensor that is missing, unexpected, of another shape, not floating point or not finite."""
    expected = shape.layout()
    faults = [f"missing {name}" for name in sorted(expected.keys() - state.keys())]
    faults += [f"unexpected {name}" for name in sorted(state.keys() - expected.keys())]
    shared = sorted(expected.keys() & state.keys())
    faults += [f"{n} is {tuple(state[n].shape)} instead of {expected[n]}" for n in shared if tuple(state[n].shape) != expected[n]]
    faults += [f"{n} is {state[n].dtype}, not floating point" for n in shared if not state[n].is_floating_point()]
    _refuse(faults, path)
    _refuse([f"{n} has values that are not finite" for n in shared if not state[n].isfinite().all()], path)


def _refuse(faults: list[str], path: Path) -> None:
    if faults:
        raise ModelError(f"the weights of {path} are not those of a CLIP model that tbps reads: {listed(faults)}")


def transformers_names(state: Mapping[str, torch.Tensor], shape: Shape) -> dict[str, torch.Tensor]:
    """Renames tensors to transformers' names as float32: projections transposed; query, key and value split."""
    named = {target: (state[name].T if name in _TRANSPOSED else state[name]) for name, target in _SINGLE.items()}
    named |= {f"{target}.{part}": state[f"{name}.{part}"] for name, target in _NORMS.items() for part in ("weight", "bias")}
    for tower in (shape.image, shape.text):
        for layer in range(tower.layers):
            source, target = f"{tower.prefix}{layer}.", f"{tower.target}{layer}."
            for part in ("weight", "bias"):
                named |= {f"{target}{new}.{part}": state[f"{source}{old}.{part}"] for old, new in _LAYER.items()}
                fused = state[f"{source}attn.in_proj_{part}"].chunk(3)
                named |= {f"{target}self_attn.{role}_proj.{part}": one for role, one in zip("qkv", fused, strict=True)}
    return {name: tensor.float() for name, tensor in named.items()}


def listed(parts: list[str]) -> str:
    """Joins the first eight parts and the number of omitted ones for an error message."""
    return "; ".join(parts[:8]) + (f"; and {len(parts) - 8} more" if len(parts) > 8 else "")
