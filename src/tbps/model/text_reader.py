"""Text encoder in numpy, which makes the first search faster because torch need not be loaded.

Embeddings equal those of `PersonModel.encode_texts` to 1e-6, and the fingerprint is the same, since it is computed over all weights
of the folder. Images need the image tower: the whole model is loaded for the first one. Measured times: docs/decisions/model.md.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from tbps.errors import ModelError
from tbps.model.folder import FEW_SHOT, PROMPT, WEIGHTS, fingerprint, prompted, read_few_shot, read_json, read_spec
from tbps.preprocess.caption import clean_caption

if TYPE_CHECKING:
    from tbps.model.bundle import PersonModel

_TOKENIZER = "tokenizer.json"
_LAYERS = "text_model.encoder.layers."


@final
class TextReader:
    """Text encoder of a model folder with the interface of a gallery's encoder; created by `open`."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.name, self.folder = str(folder), folder.resolve()
        self._few_shot = read_few_shot(config, folder / "config.json")
        stored = load_file(folder / WEIGHTS) | (load_file(folder / FEW_SHOT) if self._few_shot else {})
        self._weights = {name: array.astype(np.float32, copy=False) for name, array in stored.items()}
        self._weights = {name: array for name, array in self._weights.items() if not name.endswith("embeddings.position_ids")}
        self._tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        text = config.get("text_config", {})
        self._heads: int = text.get("num_attention_heads", 8)
        self._eps: float = text.get("layer_norm_eps", 1e-5)
        self._activation = _ACTIVATIONS[text.get("hidden_act", "quick_gelu")]
        self._depth = len({name.removeprefix(_LAYERS).partition(".")[0] for name in self._weights if name.startswith(_LAYERS)})
        positions = self._weights["text_model.embeddings.position_embedding.weight"]
        self._prompt = self._weights[PROMPT] if self._few_shot and self._few_shot.prompt else positions[:0]
        self.context_length = len(positions)
        self.dim = len(self._weights["text_projection.weight"])
        self.spec = read_spec(folder, config.get("vision_config", {}).get("image_size", 224))
        self.fingerprint = fingerprint(self._weights.items(), self._tokenizer.to_str(), self.spec, self._few_shot)

    @classmethod
    def open(cls, folder: Path) -> "TextReader | None":
        """Opens a model folder. Returns None if it is damaged or unsupported; `tbps.model.bundle.load` then raises the reason."""
        try:
            return cls(folder, read_json(folder / "config.json"))
        except (ModelError, SafetensorError, OSError, KeyError, TypeError, AttributeError):
            return None
        except Exception as error:  # the only type that the `tokenizers` library raises
            if type(error) is not Exception:
                raise
            return None

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Encodes captions to (N, dim) float32 unit rows. They are cleaned and truncated to the context length. Raises CaptionError
        for a caption without words.
        """
        rows = [self._embedding(self._tokens(text)) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, self.dim), np.float32)

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> np.ndarray:
        """Encodes images of any size and mode to (N, dim) float32 unit rows."""
        return self._whole.encode_images(images, batch_size)

    def carried(self, image: Image.Image, vector: np.ndarray) -> np.ndarray:
        """As `PersonModel.carried`."""
        return self._whole.carried(image, vector)

    def is_cut(self, text: str) -> bool:
        """Returns whether a text is longer than the model's context length, so that its end is ignored."""
        return len(self._pieces(text)) > self.context_length

    @cached_property
    def _whole(self) -> "PersonModel":
        from tbps.model.bundle import load

        return load(self.folder)

    def _pieces(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(prompted(clean_caption(text), self._few_shot)).ids
        return ids

    def _tokens(self, text: str) -> list[int]:
        ids = self._pieces(text)
        return ids if len(ids) <= self.context_length else [*ids[: self.context_length - 1], ids[-1]]

    def _embedding(self, tokens: Sequence[int]) -> np.ndarray:
        """Computes the embedding of one caption: (L,) token ids, the end token last -> (dim,)."""
        weights = self._weights
        states = weights["text_model.embeddings.token_embedding.weight"][list(tokens)]
        states[1 : 1 + len(self._prompt)] = self._prompt
        states = states + weights["text_model.embeddings.position_embedding.weight"][: len(tokens)]  # (L, width)
        hidden = np.triu(np.full((len(tokens), len(tokens)), -np.inf, np.float32), 1)
        for layer in range(self._depth):
            inside = f"{_LAYERS}{layer}."
            states = states + self._attention(self._norm(states, f"{inside}layer_norm1"), f"{inside}self_attn.", hidden)
            widened = self._activation(self._linear(self._norm(states, f"{inside}layer_norm2"), f"{inside}mlp.fc1"))
            states = states + self._linear(widened, f"{inside}mlp.fc2")
        end = weights["text_projection.weight"] @ self._norm(states[-1], "text_model.final_layer_norm")
        return np.asarray(end / max(float(np.linalg.norm(end)), 1e-12), np.float32)

    def _attention(self, states: np.ndarray, inside: str, hidden: np.ndarray) -> np.ndarray:
        length, width = states.shape
        parts = [self._linear(states, f"{inside}{part}") for part in ("q_proj", "k_proj", "v_proj")]
        queries, keys, values = (part.reshape(length, self._heads, -1).transpose(1, 0, 2) for part in parts)  # (heads, L, width)
        scores = queries @ keys.transpose(0, 2, 1) * np.float32((width // self._heads) ** -0.5) + hidden
        shares = np.exp(scores - scores.max(axis=2, keepdims=True))
        mixed = (shares / shares.sum(axis=2, keepdims=True)) @ values
        return self._linear(mixed.transpose(1, 0, 2).reshape(length, width), f"{inside}out_proj")

    def _linear(self, states: np.ndarray, name: str) -> np.ndarray:
        return np.asarray(states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"])

    def _norm(self, states: np.ndarray, name: str) -> np.ndarray:
        centred = states - states.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(self._eps))
        return np.asarray(scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"])


def _quick_gelu(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / (1 + np.exp(-1.702 * np.clip(values, -50, None))))


def _gelu(values: np.ndarray) -> np.ndarray:
    return np.asarray(values * 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float32])(values / math.sqrt(2))))


_ACTIVATIONS = {"quick_gelu": _quick_gelu, "gelu": _gelu}
