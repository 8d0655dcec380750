"""Embed once to a file; score the file.

The towers come in as two callables, so that torch, ONNX and int8 towers are scored by the same code.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tbps.data.records import PersonDataset, PersonImage
from tbps.errors import EvaluationError
from tbps.preprocess.image import ImageSpec, open_image, to_array
from tbps.storage import write_bytes

Pixels = UInt8[np.ndarray, "N H W 3"]
EncodeImages = Callable[[Pixels], Float32[np.ndarray, "N D"]]
EncodeTexts = Callable[[Sequence[str]], Float32[np.ndarray, "N D"]]
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A split embedded: Q captions in the order of `pairs()` and G images in that of `images`, with their identities.

    `model` is the fingerprint of the encoder, `source` names data set and split.
    """

    text: Float32[np.ndarray, "Q D"]
    image: Float32[np.ndarray, "G D"]
    text_ids: Int64[np.ndarray, " Q"]
    image_ids: Int64[np.ndarray, " G"]
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
    arrays: Iterator[Pixels],
    encode_images: EncodeImages,
    encode_texts: EncodeTexts,
    on_progress: OnProgress | None = None,
) -> tuple[Float32[np.ndarray, "Q D"], Float32[np.ndarray, "G D"]]:
    """Embeddings (text, image) of every caption of the split and of its images, which come in batches of resized `arrays`."""
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


def identities(split: PersonDataset) -> tuple[Int64[np.ndarray, " Q"], Int64[np.ndarray, " G"]]:
    """(text_ids, image_ids) of a split, in the order of `pairs()` and `images`."""
    image_ids = np.array([image.identity for image in split.images], dtype=np.int64)
    return image_ids[[pair.image for pair in split.pairs()]], image_ids


def decoded(images: Sequence[PersonImage], spec: ImageSpec, batch_size: int = 64) -> Iterator[Pixels]:
    """Batches decoded from disk by two threads ahead of the reader. Raises ImageError naming a bad file."""

    def read(image: PersonImage) -> UInt8[np.ndarray, "H W 3"]:
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
