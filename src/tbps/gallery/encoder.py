"""The encoder interface that galleries require of a model, whether it runs in PyTorch or ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float32
from PIL import Image

from tbps.errors import ModelError
from tbps.preprocess.image import ImageSpec

Picture = str | Path | Image.Image
"""An image to read: a path, or a Pillow image."""


class Encoder(Protocol):
    """Encodes images and texts as unit vectors of one space.

    fingerprint: equal for two models if and only if they compute the same embeddings. name: the folder or hub id that the model was
    opened from, for messages. folder: absolute path of that folder, where the calibration is stored; None if the model was opened
    by a hub id or made in memory.
    """

    @property
    def name(self) -> str: ...

    @property
    def folder(self) -> Path | None: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def spec(self) -> ImageSpec: ...

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> Float32[np.ndarray, "N dim"]:
        """Embeddings of RGB pictures of any size, as unit rows."""
        ...

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> Float32[np.ndarray, "N dim"]:
        """Embeddings of captions, as unit rows; raises CaptionError on an empty one."""
        ...

    def carried(self, image: Image.Image, vector: np.ndarray) -> Float32[np.ndarray, "rows columns"]:
        """Signed contribution of each region of a picture to the similarity between picture and vector.

        Raises ModelError if the model cannot compute it.
        """
        ...

    def is_cut(self, text: str) -> bool:
        """Whether a caption is longer than the model's context, so that it would be truncated."""
        ...


def checked_embeddings(embeddings: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    """Embeddings as contiguous float32. Raises ModelError, naming the model, if they have another shape or are not unit vectors."""
    if embeddings.shape != shape:
        raise ModelError(f"model {name!r} gave embeddings of shape {embeddings.shape} instead of {shape}")
    if not np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3):
        raise ModelError(f"model {name!r} gave embeddings that are not unit vectors; its weights may be damaged")
    return np.ascontiguousarray(embeddings, np.float32)
