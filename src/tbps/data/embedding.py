"""Embedding of a split with any pair of encoders: its images, its captions, and the identities of both.

The encoders are two callables, so that PyTorch and ONNX models are embedded by the same code.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from tbps.data.records import PersonDataset, PersonImage
from tbps.errors import EvaluationError
from tbps.preprocess.image import ImageSpec, open_image, to_array

Pixels = UInt8[np.ndarray, "N H W 3"]
EncodeImages = Callable[[Pixels], Float32[np.ndarray, "N D"]]
EncodeTexts = Callable[[Sequence[str]], Float32[np.ndarray, "N D"]]
OnProgress = Callable[[int, int], None]


def embed_split(
    split: PersonDataset,
    arrays: Iterator[Pixels],
    encode_images: EncodeImages,
    encode_texts: EncodeTexts,
    on_progress: OnProgress | None = None,
) -> tuple[Float32[np.ndarray, "Q D"], Float32[np.ndarray, "G D"]]:
    """Embeds every caption, in the order of `split.pairs()`, and every image, in the order of `split.images`.

    `arrays`: batches of the split's images at the encoder's input size (see `decoded`). `on_progress`: called with (done, total)
    images. Raises EvaluationError for a split without images.
    """
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
    """Returns (text_ids, image_ids): identities of the captions, in the order of `split.pairs()`, and of `split.images`."""
    image_ids = np.array([image.identity for image in split.images], dtype=np.int64)
    return image_ids[[pair.image for pair in split.pairs()]], image_ids


def decoded(images: Sequence[PersonImage], spec: ImageSpec, batch_size: int = 64) -> Iterator[Pixels]:
    """Yields batches of decoded and resized images; two threads prefetch the next batch. Raises ImageError naming a bad file."""

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
    """Returns JSON text with data set, split name and sizes, for the header of an embeddings file."""
    return json.dumps({"data": split.name, "split": name, "images": len(split.images), "captions": len(split.pairs())})
