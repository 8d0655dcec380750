"""Model folders open in transformers with the same embeddings; errors for faulty folders name the fault."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from tbps.errors import CaptionError, ModelError
from tbps.model.bundle import PersonModel, load
from tbps.preprocess.caption import clean_caption
from tbps.preprocess.image import ImageSpec, open_image

CAPTIONS = ["a woman in a red coat", "The man wears a navy jacket, black trousers & white shoes.", "person"]


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (60 + i, 30, 3), dtype=np.uint8)) for i in range(count)]


@pytest.fixture
def folder(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def test_texts_equal_plain_transformers(tiny_model_folder: Path) -> None:
    clip, tokenizer = CLIPModel.from_pretrained(tiny_model_folder), CLIPTokenizer.from_pretrained(tiny_model_folder)
    inputs = tokenizer([clean_caption(c) for c in CAPTIONS], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(clip.get_text_features(**inputs).pooler_output, dim=-1).numpy()
    # 1e-6: the padding mask that transformers adds only reorders float32 sums
    np.testing.assert_allclose(load(tiny_model_folder).encode_texts(CAPTIONS), expected, atol=1e-6)


def test_images_equal_plain_transformers(tiny_model_folder: Path) -> None:
    clip = CLIPModel.from_pretrained(tiny_model_folder)
    processor = CLIPImageProcessorPil.from_pretrained(tiny_model_folder)
    images = pictures(5)
    with torch.no_grad():
        features = clip.get_image_features(**processor(images=images, return_tensors="pt")).pooler_output
    expected = torch.nn.functional.normalize(features, dim=-1).numpy()
    np.testing.assert_allclose(load(tiny_model_folder).encode_images(images), expected, atol=1e-5)


def test_embeddings_are_unit_rows_for_any_batch_size(tiny_model_folder: Path) -> None:
    model, images = load(tiny_model_folder), pictures(7)
    whole, parts = model.encode_images(images), model.encode_images(images, batch_size=2)
    assert whole.shape == (7, model.dim) and whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(whole, parts, atol=1e-6)
    np.testing.assert_allclose(model.encode_texts(CAPTIONS), model.encode_texts(CAPTIONS, batch_size=1), atol=1e-6)
    assert model.encode_images([]).shape == (0, model.dim)


def test_half_precision_halves_the_file_and_keeps_the_embeddings(tiny_model_folder: Path, tmp_path: Path) -> None:
    model = load(tiny_model_folder)
    model.save(tmp_path / "half", half=True)
    half = load(tmp_path / "half")
    sizes = [(f / "model.safetensors").stat().st_size for f in (tiny_model_folder, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]
    np.testing.assert_allclose(half.encode_texts(CAPTIONS), model.encode_texts(CAPTIONS), atol=5e-3)
    assert half.fingerprint != model.fingerprint == load(tiny_model_folder).fingerprint
    # transformers reads float16 files as float32 too, because config.json sets the type
    assert CLIPModel.from_pretrained(tmp_path / "half").dtype == torch.float32


def test_another_input_size_interpolates_positions(tiny_model_folder: Path) -> None:
    model = load(tiny_model_folder)
    spec = ImageSpec(height=64, width=32, mean=model.spec.mean, std=model.spec.std)
    tall = PersonModel(model.clip, model.tokenizer, spec, "tall")
    embedded = tall.encode_images(pictures(3))
    assert embedded.shape == (3, model.dim) and tall.fingerprint != model.fingerprint
    pixels = torch.randn(2, 3, 64, 32)
    positions = model.clip.vision_model.embeddings.position_embedding.weight[1:].T.reshape(1, -1, 4, 4)
    expected = torch.nn.functional.interpolate(positions, size=(8, 4), mode="bicubic", align_corners=False)
    used = model.clip.vision_model.embeddings.interpolate_pos_encoding(torch.zeros(1, 33, 32), 64, 32)
    torch.testing.assert_close(used[0, 1:], expected.flatten(2)[0].T)
    assert pixels.shape[-2:] == (spec.height, spec.width)


@pytest.mark.parametrize("caption", ["", "   ", " . ! ", "\x00\x07"])
def test_empty_captions_are_refused(tiny_model_folder: Path, caption: str) -> None:
    with pytest.raises(CaptionError):
        load(tiny_model_folder).encode_texts([caption])


@pytest.mark.parametrize("caption", ["person", "word " * 500, "一个穿红色外套的女人", "a man 😀 with a cap", "tab\tand\x07bell"])
def test_unusual_captions_can_be_embedded(tiny_model_folder: Path, caption: str) -> None:
    model = load(tiny_model_folder)
    assert np.isfinite(model.encode_texts([caption])).all()
    assert model.is_cut(caption) == (len(caption) > 1000)


def test_missing_weight_is_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"missing visual_projection\.weight"):
        load(folder)


def test_unexpected_and_misshapen_weights_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["head.bias"] = torch.zeros(3)
    weights["text_projection.weight"] = torch.zeros(5, 5)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"unexpected head\.bias.*text_projection\.weight is \(5, 5\) instead of"):
        load(folder)


def test_position_numbers_of_old_folders_are_ignored(folder: Path, tiny_model_folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(77).expand(1, -1).contiguous()
    save_file(weights, folder / "model.safetensors")
    assert load(folder).fingerprint == load(tiny_model_folder).fingerprint


class Draws(TorchDispatchMode):
    """Counts the random numbers that are drawn inside the block."""

    numbers = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in op.tags:
            self.numbers += result.numel()
        return result


def test_loading_draws_no_random_weights(tiny_model_folder: Path) -> None:
    with Draws() as drawn:
        model = load(tiny_model_folder)
    # transformers creates the class token with torch.randn in any case
    assert drawn.numbers == model.clip.config.vision_config.hidden_size
    stored = load_file(tiny_model_folder / "model.safetensors")
    assert all(torch.equal(tensor, stored.pop(name)) for name, tensor in model.clip.state_dict().items()) and not stored
    plain = CLIPModel.from_pretrained(tiny_model_folder)
    numbers = dict(plain.named_buffers())  # position ids: buffers that are not in the file
    assert numbers and all(torch.equal(buffer, numbers.pop(name)) for name, buffer in model.clip.named_buffers()) and not numbers
    with Draws() as drawn:
        CLIPModel(model.clip.config)
    assert drawn.numbers > 10_000  # checks that the counter works


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", "{", "not JSON"),
        ("config.json", json.dumps({"model_type": "bert"}), "'bert' model"),
        ("model.safetensors", None, "model.safetensors is missing"),
        ("model.safetensors", "garbage", "damaged"),
        ("tokenizer.json", None, "tokenizer"),
    ],
)
def test_broken_folders_are_refused(folder: Path, name: str, content: str | None, message: str) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_a_pickle_with_code_is_not_executed(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'owned')!r}, 'w')",))

    (folder / "model.safetensors").unlink()
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="refused"):
        load(folder)
    assert not (tmp_path / "owned").exists()


def test_a_pickle_of_tensors_opens(folder: Path, tiny_model_folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert load(folder).fingerprint == load(tiny_model_folder).fingerprint


def test_unknown_folder_and_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load("models/nowhere")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"hf download openai/clip-vit-base-patch99 --local-dir models/clip-vit-base-patch99"):
        load("openai/clip-vit-base-patch99")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("preprocessor_config.json", "{"),
        ("preprocessor_config.json", "[1, 2]"),
        ("preprocessor_config.json", '{"size": {"height": 32}}'),
        ("preprocessor_config.json", '{"image_mean": [0.5]}'),
        ("preprocessor_config.json", '{"image_std": [0, 0, 0]}'),
        ("config.json", '{"model_type": "clip", "text_config": 3}'),
        ("config.json", '{"model_type": "clip", "vision_config": {"hidden_act": "nonsense"}}'),
        ("config.json", '{"model_type": "clip", "vision_config": {"num_attention_heads": 7}}'),
        ("config.json", '{"model_type": "clip", "projection_dim": null}'),
    ],
)
def test_a_file_with_an_invalid_value_is_named(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(ModelError, match=re.escape(file)):
        load(folder)


def test_a_name_too_long_for_the_disk_is_no_folder() -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load("x" * 300)


def test_pictures_of_any_mode_and_orientation(tiny_model_folder: Path) -> None:
    model, upright = load(tiny_model_folder), pictures(1)[0]
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # must be rotated clockwise
    file = io.BytesIO()
    turned.save(file, "PNG", exif=turned.getexif())
    expected = model.encode_images([upright])
    for same in (upright.convert("RGBA"), turned, Image.open(file), open_image(file.getvalue())):
        np.testing.assert_allclose(model.encode_images([same]), expected, atol=1e-6)
