"""Training encodes captions in groups of similar length ("runs by length") and may use plain attention: embeddings and gradients
stay the same.
"""

from pathlib import Path

import pytest
import torch

from tbps.model.bundle import PersonModel, load
from tbps.model.clip import choose_attention, image_features, text_features, text_features_in_parts
from tbps.model.tokens import tokenise

CAPTIONS = [
    "a woman",
    "the man wears a navy jacket and black trousers",
    "a red coat",
    "a woman in a red coat with a black backpack",
    "man",
]


def gradients(model: PersonModel, features: torch.Tensor) -> list[torch.Tensor]:
    model.clip.zero_grad()
    torch.autograd.backward((features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum())
    return [parameter.grad.clone() for parameter in model.clip.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("parts", [1, 2, 4, 9])
def test_runs_by_length_give_the_embeddings_and_gradients_of_one_run(tiny_model_folder: Path, parts: int) -> None:
    model = load(tiny_model_folder)
    model.clip.double()
    tokens = tokenise(model.tokenizer, CAPTIONS * 26, model.context_length)  # 130 captions are enough for four runs
    whole, in_parts = text_features(model.clip, tokens), text_features_in_parts(model.clip, tokens, parts)
    # not bitwise, because sums are added in another order
    torch.testing.assert_close(in_parts, whole, atol=1e-12, rtol=0)
    for one, other in zip(gradients(model, in_parts), gradients(model, whole), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def test_the_attention_chosen_for_training_computes_the_same(tiny_model_folder: Path, tmp_path: Path) -> None:
    fused, plain = load(tiny_model_folder), load(tiny_model_folder)
    choose_attention(plain.clip)
    assert plain.clip.config._attn_implementation != fused.clip.config._attn_implementation
    tokens = tokenise(fused.tokenizer, CAPTIONS, fused.context_length)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(text_features(plain.clip, tokens), text_features(fused.clip, tokens), atol=1e-6, rtol=0)
    torch.testing.assert_close(image_features(plain.clip, pixels), image_features(fused.clip, pixels), atol=1e-6, rtol=0)
    plain.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "config.json").read_text() == (tiny_model_folder / "config.json").read_text()
    assert load(tmp_path / "saved").fingerprint == fused.fingerprint
