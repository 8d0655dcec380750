"""Embed once to a file; score the file.

The towers come in as two callables, so that torch, ONNX and int8 towers are scored by the same code.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tbps.data.records import PersonDataset, PersonImage
from tbps.errors import EvaluationError
from tbps.preprocess.image import ImageSpec, open_image, to_array
from tbps.storage import write_bytes

EncodeImages = Callable[[np.ndarray], np.ndarray]  # (N, H, W, 3) uint8 -> (N, D)
EncodeTexts = Callable[[Sequence[str]], np.ndarray]  # N captions -> (N, D)
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A split embedded: text (Q, D) and image (G, D) float32 with their identities, in the order of `pairs()` and `images`.

    `model` is the fingerprint of the encoder, `source` names data set and split.
    """

    text: np.ndarray
    image: np.ndarray
    text_ids: np.ndarray
    image_ids: np.ndarray
    model: str
    source: str

    def save(self, file: Path) -> None:
        """Writes a safetensors file atomically; model and source stand in its header."""
        tensors = {"text": self.text, "image": self.image, "text_ids": self.text_ids, "image_ids": self.image_ids}
        header = {"model": self.model, "source": self.source, "format": "tbps-embeddings"}
        write_bytes(file, save(tensors, header))

    @staticmethod
    def load(file: Path) -> "Embeddings":
        """Reads what `save` wrote. Raises EvaluationError on a missing or foreign file."""
        try:
            with safe_open(file, framework="numpy") as stored:
                header = stored.metadata() or {}
                names = ("text", "image", "text_ids", "image_ids")
                tensors = {name: stored.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise EvaluationError(f"{file} holds no embeddings ({error}); write it with `tbps embed`") from error
        return Embeddings(**tensors, model=header.get("model", ""), source=header.get("source", ""))


def embed_split(
    split: PersonDataset,
    arrays: Iterator[np.ndarray],
    encode_images: EncodeImages,
    encode_texts: EncodeTexts,
    on_progress: OnProgress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Images in batches of resized uint8 arrays and every caption of the split -> (text (Q, D), image (G, D)) float32."""
    if not split.images:
        raise EvaluationError(f"the split of {split.name} at {split.root} has no images; choose another with --split")
    rows: list[np.ndarray] = []
    done = 0
    for batch in arrays:
        rows.append(encode_images(batch))
        done += len(batch)
        if on_progress:
            on_progress(done, len(split.images))
    captions = [split.images[pair.image].captions[pair.caption] for pair in split.pairs()]
    return encode_texts(captions), np.concatenate(rows)


def identities(split: PersonDataset) -> tuple[np.ndarray, np.ndarray]:
    """(text_ids (Q,), image_ids (G,)) int64 of a split, in the order of `pairs()` and `images`."""
    image_ids = np.array([image.identity for image in split.images], dtype=np.int64)
    return image_ids[[pair.image for pair in split.pairs()]], image_ids


def decoded(images: Sequence[PersonImage], spec: ImageSpec, batch_size: int = 64) -> Iterator[np.ndarray]:
    """Batches (N, H, W, 3) uint8 decoded from disk by two threads ahead of the reader. Raises ImageError naming a bad file."""

    def read(image: PersonImage) -> np.ndarray:
        return to_array(open_image(image.path), spec)

    with ThreadPoolExecutor(2) as pool:
        chunks = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
        ahead = [pool.submit(read, image) for image in chunks[0]] if chunks else []
        for number, _ in enumerate(chunks):
            current = ahead
            ahead = [pool.submit(read, image) for image in chunks[number + 1]] if number + 1 < len(chunks) else []
            yield np.stack([future.result() for future in current])


def describe_source(split: PersonDataset, name: str) -> str:
    """One line that names data set, split and sizes, for files and reports."""
    return json.dumps({"data": split.name, "split": name, "images": len(split.images), "captions": len(split.pairs())})
