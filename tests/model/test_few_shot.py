"""CoOp and CLIP-Adapter against their formulas on a locked backbone, and their model folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import layer_norm, linear
from transformers import CLIPConfig, CLIPModel

from tbps.errors import CaptionError, ModelError, SettingsError
from tbps.model.bundle import PersonModel, load
from tbps.model.clip import image_features, text_features
from tbps.model.few_shot import ADDED, add_few_shot
from tbps.model.folder import FewShotSettings
from tbps.model.foreign.formats import ConvertSettings, convert
from tbps.model.text_reader import TextReader
from tbps.model.tokens import tokenise, train_tokenizer
from tbps.preprocess.caption import clean_caption

TEXT = "a pedestrian photo of"
CAPTIONS = ["A woman in a red coat.", "man", "the man wears a navy jacket and black trousers"]
WAYS: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": TEXT},
    "adapter": {"adapter_ratio": 0.4},
    "both": {"prompt": "people's", "adapter_ratio": 1.0},
}


def added(folder: Path, moved: bool = True, **settings: Any) -> PersonModel:
    """The tiny model with a prompt or adapter; `moved`: with changed values, as after some training."""
    model = load(folder)
    add_few_shot(model.clip, model.tokenizer, FewShotSettings(**settings), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.clip.named_parameters():
        if moved and name in ADDED:
            parameter.data += torch.randn(parameter.shape, generator=generator)
    return model


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 20, 3), dtype=np.uint8)) for _ in range(3)]


def test_a_new_prompt_equals_its_initial_text(tiny_model_folder: Path) -> None:
    model = added(tiny_model_folder, moved=False, prompt=TEXT)
    expected = load(tiny_model_folder).encode_texts([f"{TEXT} {caption}" for caption in CAPTIONS])
    assert np.array_equal(model.encode_texts(CAPTIONS), expected)
    assert np.array_equal(model.encode_images(pictures()), load(tiny_model_folder).encode_images(pictures()))


def text_tower(weights: dict[str, torch.Tensor], tokens: list[int], vectors: torch.Tensor, heads: int) -> torch.Tensor:
    """The embedding of one caption by CoOp's definition: start token, prompt vectors, caption tokens, end token."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def dense(x: torch.Tensor, name: str) -> torch.Tensor:
        return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    words = weights["text_model.embeddings.token_embedding.weight"][tokens]
    x = torch.cat([words[:1], vectors, words[1:]])
    x = x + weights["text_model.embeddings.position_embedding.weight"][: len(x)]
    future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    for layer in range(2):
        name = f"text_model.encoder.layers.{layer}"
        states = norm(x, f"{name}.layer_norm1")
        q, k, v = (dense(states, f"{name}.self_attn.{part}_proj").view(len(x), heads, -1).transpose(0, 1) for part in "qkv")
        scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(future, -torch.inf)
        x = x + dense((scores.softmax(-1) @ v).transpose(0, 1).flatten(1), f"{name}.self_attn.out_proj")
        widened = dense(norm(x, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
        x = x + dense(widened * torch.sigmoid(1.702 * widened), f"{name}.mlp.fc2")
    return norm(x[-1], "text_model.final_layer_norm") @ weights["text_projection.weight"].T


def test_the_prompt_and_its_gradient_are_those_of_the_definition(tiny_model_folder: Path) -> None:
    model = added(tiny_model_folder, prompt=TEXT)
    clip = model.clip.double()
    weights = {name: tensor.detach() for name, tensor in clip.state_dict().items()}
    vectors = weights[ADDED[0]].clone().requires_grad_()
    assert len(vectors) == len(model.tokenizer(TEXT)["input_ids"]) - 2
    cleaned = [clean_caption(caption) for caption in CAPTIONS]
    expected = torch.stack([text_tower(weights, model.tokenizer(caption)["input_ids"], vectors, 2) for caption in cleaned])
    found = text_features(clip, model.tokenise(cleaned))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)  # float64 in another order
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for result in (found, expected):
        torch.autograd.backward(result, direction)
    gradient = clip.get_parameter(ADDED[0]).grad
    assert gradient is not None and bool(gradient.any(dim=1).all())
    torch.testing.assert_close(gradient, vectors.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("ratio", [0.4, 1.0])
def test_the_adapter_and_its_gradients_are_those_of_the_formula(tiny_model_folder: Path, ratio: float) -> None:
    clip = added(tiny_model_folder, adapter_ratio=ratio).clip.double()
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        f = image_features(load(tiny_model_folder).clip.double(), pixels)
    w1, w2 = (clip.get_parameter(name).detach().clone().requires_grad_() for name in ADDED[1:])
    assert w1.shape == (4, 16) and w2.shape == (16, 4)
    expected = ratio * torch.clamp(torch.clamp(f @ w1.T, min=0) @ w2.T, min=0) + (1 - ratio) * f
    found = image_features(clip, pixels)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(found, f, atol=0.1)
    for result in (found, expected):
        result.square().sum().backward()
    for name, oracle in zip(ADDED[1:], (w1, w2), strict=True):
        torch.testing.assert_close(clip.get_parameter(name).grad, oracle.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_saved_folder_is_restored_and_contains_the_backbone(
    tiny_model_folder: Path, tmp_path: Path, way: str, half: bool
) -> None:
    model = added(tiny_model_folder, **WAYS[way])
    model.save(tmp_path, half=half)
    opened, reader, backbone = load(tmp_path), TextReader.open(tmp_path), load(tiny_model_folder)
    assert opened.few_shot == model.few_shot == FewShotSettings(**WAYS[way]) and reader is not None
    tolerance = 2e-2 if half else 0  # float16 keeps 11 bits, and some weights are drawn from N(0, 1)
    np.testing.assert_allclose(opened.encode_texts(CAPTIONS), model.encode_texts(CAPTIONS), atol=tolerance)
    np.testing.assert_allclose(opened.encode_images(pictures()), model.encode_images(pictures()), atol=tolerance)
    np.testing.assert_allclose(reader.encode_texts(CAPTIONS), opened.encode_texts(CAPTIONS), atol=1e-6)  # float32 in another order
    assert reader.fingerprint == opened.fingerprint != backbone.fingerprint
    assert half or opened.fingerprint == model.fingerprint
    plain, told = CLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    stored = backbone.clip.half().float().state_dict() if half else backbone.clip.state_dict()
    assert plain.state_dict().keys() == stored.keys() and all(
        torch.equal(plain.state_dict()[name], stored[name]) for name in stored
    )


def test_the_ratio_is_part_of_the_fingerprint(tiny_model_folder: Path) -> None:
    models = [added(tiny_model_folder, adapter_ratio=ratio) for ratio in (0.4, 0.5)]
    assert models[0].fingerprint != models[1].fingerprint


def test_the_prompt_takes_tokens_of_the_context(tiny_model_folder: Path, tmp_path: Path) -> None:
    model = added(tiny_model_folder, prompt=TEXT)
    model.save(tmp_path)
    reader, places = TextReader.open(tmp_path), len(model.tokenizer(TEXT)["input_ids"]) - 2
    assert reader is not None
    fits, long = ("man " * (75 - places)).strip(), ("man " * (76 - places)).strip()
    assert [m.is_cut(text) for m in (model, reader) for text in (fits, long)] == [False, True, False, True]
    assert not load(tiny_model_folder).is_cut(long)
    tokens = model.tokenise([fits, long])
    assert tokens.shape == (2, 77) and tokens[0].tolist() == tokens[1].tolist() and tokens[0, -1] == model.tokenizer.eos_token_id
    np.testing.assert_allclose(reader.encode_texts([long]), model.encode_texts([long]), atol=1e-6)


def test_tokens_of_prompt_and_caption_are_not_merged(tiny_model_folder: Path) -> None:
    model = added(tiny_model_folder, prompt=TEXT)
    for caption in (*CAPTIONS, "'s", "12", "-", "\u00fcber"):
        alone, before = model.tokenizer(clean_caption(caption))["input_ids"], model.tokenizer(TEXT)["input_ids"]
        assert model.tokenise([clean_caption(caption)])[0].tolist() == [*before[:-1], *alone[1:]]


@pytest.mark.parametrize(("way", "learned"), [("prompt", 4 * 512), ("adapter", 2 * 512 * 128)])
def test_parameter_counts_on_the_towers_of_the_paper(way: str, learned: int) -> None:
    tokenizer = train_tokenizer([TEXT] * 20, 600)
    assert len(tokenise(tokenizer, [TEXT], 77)[0]) == 6  # one token per word, as in OpenAI's vocabulary
    with torch.device("meta"):
        clip = CLIPModel(CLIPConfig())
    add_few_shot(clip, tokenizer, FewShotSettings(**WAYS[way]))
    assert sum(p.numel() for name, p in clip.named_parameters() if name in ADDED) == learned


def test_errors_name_the_fault(tiny_model_folder: Path, tmp_path: Path) -> None:
    model = added(tiny_model_folder, prompt=TEXT)
    with pytest.raises(SettingsError, match="start from its backbone"):
        add_few_shot(model.clip, model.tokenizer, FewShotSettings(adapter_ratio=0.4))
    with pytest.raises(SettingsError, match="no room for a caption in 77"):
        added(tiny_model_folder, prompt="man " * 75)
    with pytest.raises(CaptionError):
        FewShotSettings(prompt=" . ")
    with pytest.raises(SettingsError, match="adds nothing"):
        FewShotSettings()
    model.save(tmp_path)
    with pytest.raises(ModelError, match="convert its start model"):
        convert(str(tmp_path), ConvertSettings())
    config, weights = tmp_path / "config.json", tmp_path / "few_shot.safetensors"
    values = json.loads(config.read_text())
    for odd, message in (
        ({"prompts": TEXT}, "few_shot: .*prompts"),
        ({"prompt": "man"}, r"vectors is \(\d+, 32\) instead of \(1, 32\)"),
    ):
        config.write_text(json.dumps(values | {"few_shot": odd}))
        with pytest.raises(ModelError, match=message):
            load(tmp_path)
    config.write_text(json.dumps(values | {"few_shot": {"adapter_ratio": 0.4}}))
    with pytest.raises(ModelError, match=r"missing visual_projection\.narrow\.weight.*unexpected .*vectors"):
        load(tmp_path)
    config.write_text(json.dumps(values))
    assert load_file(weights).keys() == {ADDED[0]}
    weights.unlink()
    with pytest.raises(ModelError, match=r"few_shot\.safetensors is missing"):
        load(tmp_path)
    assert TextReader.open(tmp_path) is None
