"""What a gallery asks of a model, and nothing more: torch, ONNX and int8 towers are the same to it."""

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
    """Images and texts to unit rows of one space.

    `fingerprint` is equal exactly when the embeddings are; `name` is what opened the model (a folder or an id).
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def spec(self) -> ImageSpec: ...

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> Float32[np.ndarray, "N dim"]:
        """Unit rows of RGB pictures of any size."""
        ...

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> Float32[np.ndarray, "N dim"]:
        """Unit rows of captions; raises CaptionError on an empty one."""
        ...

    def carried(self, image: Image.Image, vector: np.ndarray) -> Float32[np.ndarray, "rows columns"]:
        """What each region of a picture carried of its similarity to a vector, signed. Raises ModelError where it cannot tell."""
        ...

    def is_cut(self, text: str) -> bool:
        """Whether a caption is longer than the model reads, so that its end would be left out."""
        ...


def checked_embeddings(embeddings: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    """Embeddings as they are stored. Raises ModelError when shape or lengths are wrong; `name` is the model's."""
    if embeddings.shape != shape:
        raise ModelError(f"model {name!r} gave embeddings of shape {embeddings.shape} instead of {shape}")
    if not np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3):
        raise ModelError(f"model {name!r} gave embeddings that are not unit vectors; its weights may be damaged")
    return np.ascontiguousarray(embeddings, np.float32)
