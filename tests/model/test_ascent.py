"""Layer-by-layer evaluation gives the embeddings of the whole tower, also after changes to the remaining layers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tbps.model.ascent import ImageAscent, TextAscent
from tbps.model.bundle import PersonModel, load
from tbps.model.surgery import Module, removed
from tbps.preprocess.image import ImageSpec

CAPTIONS = [f"a {colour} coat{' and a black backpack' * times}" for times in (4, 0, 2) for colour in ("red", "navy", "grey")] * 16


@pytest.mark.parametrize("size", [32, 48])
def test_embeddings_equal_those_of_the_model_at_every_layer(tiny_model_folder: Path, size: int) -> None:
    """The tolerance is 1e-6, because rounding depends on the batch size. 144 captions and 70 images are more than one batch."""
    opened = load(tiny_model_folder)
    model = PersonModel(opened.clip, opened.tokenizer, ImageSpec(height=size, width=size), "tiny")
    arrays = np.random.default_rng(0).integers(256, size=(70, size, size, 3), dtype=np.uint8)
    images, texts = ImageAscent(model, arrays), TextAscent(model, CAPTIONS)
    for layer in (1, 2):
        assert images.layer == texts.layer == layer
        np.testing.assert_allclose(images.rows(), model.encode_arrays(arrays), atol=1e-6)
        np.testing.assert_allclose(texts.rows(), model.encode_texts(CAPTIONS), atol=1e-6)
        with removed(model.clip, Module("image", 2, "layer")), removed(model.clip, Module("text", layer, "attention")):
            np.testing.assert_allclose(images.rows(), model.encode_arrays(arrays), atol=1e-6)
            np.testing.assert_allclose(texts.rows(), model.encode_texts(CAPTIONS), atol=1e-6)
        images.climb()
        texts.climb()
    np.testing.assert_allclose(images.rows(), model.encode_arrays(arrays), atol=1e-6)


def test_half_precision_follows_changes_of_the_weights(tiny_model_folder: Path) -> None:
    """The tolerance is 0.02, because bfloat16 keeps 8 bits, 0.4 % of a value."""
    model = load(tiny_model_folder)
    arrays = np.random.default_rng(0).integers(256, size=(3, 32, 32, 3), dtype=np.uint8)
    for ascent, encode in (
        (ImageAscent(model, arrays, torch.bfloat16), lambda: model.encode_arrays(arrays)),
        (TextAscent(model, CAPTIONS, torch.bfloat16), lambda: model.encode_texts(CAPTIONS)),
    ):
        whole = ascent.rows()
        np.testing.assert_allclose(whole, encode(), atol=0.02)
        with removed(model.clip, Module(ascent.tower, 1, "layer")):
            assert abs(ascent.rows() - whole).max() > 0.1
            np.testing.assert_allclose(ascent.rows(), encode(), atol=0.02)
