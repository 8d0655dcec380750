"""Files of embeddings, so that a split is embedded once and can be scored many times."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tbps.errors import EvaluationError
from tbps.storage import write_bytes


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Unit embeddings of Q captions and G images with their identities.

    `model`: fingerprint of the encoder. `source`: names of data set and split.
    """

    text: Float32[np.ndarray, "Q D"]
    image: Float32[np.ndarray, "G D"]
    text_ids: Int64[np.ndarray, " Q"]
    image_ids: Int64[np.ndarray, " G"]
    model: str
    source: str

    def save(self, file: Path) -> None:
        """Write a safetensors file atomically, with `model` and `source` in its header."""
        tensors = {"text": self.text, "image": self.image, "text_ids": self.text_ids, "image_ids": self.image_ids}
        header = {"model": self.model, "source": self.source, "format": "tbps-embeddings"}
        write_bytes(file, save(tensors, header))

    @staticmethod
    def load(file: Path) -> "Embeddings":
        """Read a file that `save` wrote. Raises EvaluationError for a missing file or one of another format."""
        try:
            with safe_open(file, framework="numpy") as stored:
                header = stored.metadata() or {}
                names = ("text", "image", "text_ids", "image_ids")
                tensors = {name: stored.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise EvaluationError(f"{file} holds no embeddings ({error}); write it with `tbps embed`") from error
        return Embeddings(**tensors, model=header.get("model", ""), source=header.get("source", ""))
