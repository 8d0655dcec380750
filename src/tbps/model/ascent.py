"""Layer-by-layer evaluation of a tower over all inputs, for probes that change one layer many times.

The inputs of the current layer are kept in memory, so the layers below it are computed only once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import final

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from transformers import CLIPModel

from tbps.model.bundle import PersonModel
from tbps.model.clip import project_image
from tbps.model.surgery import Tower, layers_of
from tbps.preprocess.caption import clean_caption
from tbps.preprocess.image import normalise

_IMAGES, _CAPTIONS = 64, 128  # inputs per batch


class Ascent(ABC):
    """Inputs of the current layer of a tower, in batches of states (n, L, width).

    `layer`: number of the current layer, from 1; `half`: dtype in which the layers compute, None for float32.
    """

    tower: Tower

    def __init__(self, clip: CLIPModel, states: Iterable[Tensor], half: torch.dtype | None) -> None:
        self.clip = clip
        self.layer = 1
        self._states = list(states)
        self._half = half

    @torch.no_grad()
    def climb(self) -> None:
        """Computes the current layer with its present weights and makes the next layer the current one."""
        layer = layers_of(self.clip, self.tower)[self.layer - 1]
        with self._computing():
            self._states = [layer(states, self._mask(number)) for number, states in enumerate(self._states)]
        self.layer += 1

    @torch.no_grad()
    def rows(self) -> Float32[np.ndarray, "N D"]:
        """Returns the embeddings, (N, D) with unit rows in the order of the inputs.

        They are computed from the current layer upwards, with the present weights.
        """
        above = layers_of(self.clip, self.tower)[self.layer - 1 :]

        def embed(number: int, states: Tensor) -> Tensor:
            mask = self._mask(number)
            last = reduce(lambda below, layer: layer(below, mask), above, states)
            return torch.nn.functional.normalize(self._read(number, last).float(), dim=-1)

        with self._computing():
            rows = torch.cat([embed(*batch) for batch in enumerate(self._states)])
        return self._in_order(rows.cpu().numpy())

    def _computing(self) -> torch.autocast:
        """Returns a new autocast context. A context caches the weights that it has cast, so it must not be reused after weights
        have changed.
        """
        return torch.autocast(self.clip.logit_scale.device.type, self._half, enabled=self._half is not None)

    @abstractmethod
    def _mask(self, number: int) -> Tensor | None:
        """Returns the mask that is added to the attention scores of a batch, or None."""

    @abstractmethod
    def _read(self, number: int, states: Tensor) -> Tensor:
        """Reads the embeddings: (n, L, width) states of the last layer -> (n, D)."""

    @abstractmethod
    def _in_order(self, rows: np.ndarray) -> np.ndarray: ...


@final
class ImageAscent(Ascent):
    """The image tower over `arrays`: (N, height, width, 3) uint8, already at the input size of `model`."""

    tower: Tower = "image"

    @torch.no_grad()
    def __init__(self, model: PersonModel, arrays: np.ndarray, half: torch.dtype | None = None) -> None:
        tower, size = model.clip.vision_model, model.clip.config.vision_config.image_size

        def enter(batch: np.ndarray) -> Tensor:
            pixels = normalise(torch.from_numpy(np.array(batch)).permute(0, 3, 1, 2).to(model.device), model.spec)
            resized = tuple(pixels.shape[-2:]) != (size, size)
            states: Tensor = tower.pre_layrnorm(tower.embeddings(pixels, interpolate_pos_encoding=resized))
            return states

        super().__init__(model.clip, (enter(arrays[start : start + _IMAGES]) for start in range(0, len(arrays), _IMAGES)), half)

    def _mask(self, number: int) -> None:
        return None

    def _read(self, number: int, states: Tensor) -> Tensor:
        return project_image(self.clip, states[:, 0])

    def _in_order(self, rows: np.ndarray) -> np.ndarray:
        return rows


@final
class TextAscent(Ascent):
    """The text tower over captions, which are cleaned, truncated to the context length and batched by length."""

    tower: Tower = "text"

    @torch.no_grad()
    def __init__(self, model: PersonModel, captions: Sequence[str], half: torch.dtype | None = None) -> None:
        cleaned = [clean_caption(caption) for caption in captions]
        self._order = np.argsort([len(caption) for caption in cleaned], kind="stable")
        batches = [self._order[start : start + _CAPTIONS] for start in range(0, len(cleaned), _CAPTIONS)]
        tokens = [model.tokenise([cleaned[row] for row in rows]) for rows in batches]
        self._ends = [batch.argmax(dim=1).to(model.device) for batch in tokens]  # the end token has the highest id
        states = (model.clip.text_model.embeddings(input_ids=batch.to(model.device)) for batch in tokens)
        super().__init__(model.clip, states, half)

    def _mask(self, number: int) -> Tensor:
        length = self._states[number].shape[1]
        return torch.full((1, 1, length, length), -torch.inf, device=self.clip.logit_scale.device).triu(1)

    def _read(self, number: int, states: Tensor) -> Tensor:
        ends = states[torch.arange(len(states), device=states.device), self._ends[number]]
        projected: Tensor = self.clip.text_projection(self.clip.text_model.final_layer_norm(ends))
        return projected

    def _in_order(self, rows: np.ndarray) -> np.ndarray:
        ordered = np.empty_like(rows)
        ordered[self._order] = rows
        return ordered
