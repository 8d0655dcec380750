"""Converted checkpoints give the embeddings of an independent CLIP with the same weights; invalid and hostile files are refused."""

import argparse
import copy
import json
import pickle
import pickletools
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPModel

from tbps.errors import ModelError, SettingsError
from tbps.model.bundle import PersonModel, load
from tbps.model.clip import image_features, text_features
from tbps.model.foreign.formats import IMAGENET_MEAN, IMAGENET_STD, Conversion, ConvertSettings, convert
from tbps.model.foreign.layouts import Shape
from tbps.model.foreign.positions import resize_image_positions, resize_text_positions, square_image_positions
from tbps.model.pickles import read_tensors
from tbps.preprocess.image import CLIP_MEAN, CLIP_STD
from tests.oracles import positions as position_oracle
from tests.oracles.openai_clip import OpenAIClip

State = dict[str, torch.Tensor]
QUICK = {"activation": "quick_gelu"}


@pytest.fixture(scope="module")
def vocabulary(tiny_model_folder: Path) -> int:
    return len(load(tiny_model_folder).tokenizer)


@pytest.fixture(scope="module")
def clip(vocabulary: int) -> OpenAIClip:
    return OpenAIClip(vocabulary=vocabulary)


@pytest.fixture(scope="module")
def torchscript(clip: OpenAIClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_torchscript(clip, tmp_path_factory.mktemp("openai") / "ViT.pt")


@pytest.fixture
def converted(tiny_model_folder: Path) -> Callable[..., Conversion]:
    def run(source: Path, **settings: object) -> Conversion:
        return convert(str(source), ConvertSettings.parse(settings), tiny_model_folder)

    return run


def pixels(height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(1))


def tokens(vocabulary: int) -> torch.Tensor:
    """Start token, words, end token, then zeros, as OpenAI pads."""
    rows = torch.randint(1, vocabulary - 2, (4, 16), generator=torch.Generator().manual_seed(2))
    rows[:, 0] = vocabulary - 2
    for row, end in enumerate((15, 9, 3, 1)):
        rows[row, end], rows[row, end + 1 :] = vocabulary - 1, 0
    return rows


def assert_same(model: PersonModel, clip: OpenAIClip, tolerance: float = 2e-5) -> None:
    """Compares unnormalised embeddings of both towers at the model's own input size."""
    vocabulary = clip.token_embedding.num_embeddings
    size = (model.spec.height, model.spec.width)
    with torch.no_grad():
        images, texts = clip(pixels(*size), tokens(vocabulary)[:, : model.context_length])
        torch.testing.assert_close(image_features(model.clip, pixels(*size)), images, atol=tolerance, rtol=tolerance)
        found = text_features(model.clip, tokens(vocabulary)[:, : model.context_length])
        torch.testing.assert_close(found, texts, atol=tolerance, rtol=tolerance)


def state_of(clip: OpenAIClip) -> State:
    return {name: tensor.clone() for name, tensor in clip.state_dict().items()}


def write_torchscript(clip: OpenAIClip, path: Path, half: bool = False) -> Path:
    """Writes a TorchScript archive like OpenAI's: traced, with three sizes of the model among the buffers."""
    clip = copy.deepcopy(clip)
    for name, number in (("input_resolution", 32), ("context_length", 16), ("vocab_size", 99)):
        clip.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer PyTorch warns that TorchScript is deprecated
        archive = torch.jit.trace(clip, (pixels(), tokens(clip.token_embedding.num_embeddings)), check_trace=False)
        (archive.half() if half else archive).save(path)
    return path


def heads() -> State:
    """Names and tensors of the training heads of the reference and IRRA."""
    names = ["classifier.weight", "classifier.bias", "cross_attn.in_proj_weight", "mlm_head.fc.weight", "ln_post.weight"]
    return {name: torch.ones(3) for name in [*names, "cross_modal_transformer.resblocks.0.ln_1.weight", "ln_pre_t.bias"]}


def reference_state(clip: OpenAIClip) -> State:
    kept = ("visual.", "logit_scale")
    return {n if n.startswith(kept) else f"encode_text.{n}": t for n, t in state_of(clip).items()}


def irra_state(clip: OpenAIClip) -> State:
    return {f"base_model.{n}": t for n, t in state_of(clip).items() if n != "logit_scale"}


def write_reference(clip: OpenAIClip, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Writes a checkpoint like the reference's: weights, an optimizer with numpy scalars, and a configuration as an EasyDict, which
    holds its items a second time as attributes.
    """

    class EasyDict(dict):  # type: ignore[type-arg]
        def __init__(self, values: dict[str, object]) -> None:
            super().__init__()
            for name, value in values.items():
                setattr(self, name, EasyDict(value) if isinstance(value, dict) else value)

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            super().__setitem__(name, value)

        __setitem__ = __setattr__

    EasyDict.__module__, EasyDict.__qualname__ = "easydict", "EasyDict"
    state = OrderedDict(reference_state(clip) | heads() | {"simclr_mlp.0.weight": torch.ones(2, 2)})
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": np.float64(1e-4), "betas": (0.9, 0.98)}]}
    config = EasyDict({"device": "cuda:0", "experiment": {"input_resolution": [224, 224], "ss": True}})
    with monkeypatch.context() as patch:
        module = types.ModuleType("easydict")
        module.EasyDict = EasyDict  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "easydict", module)
        torch.save({"model": state, "optimizer": optimizer, "config": config}, path)
    return path


# ---------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(torch.save, id="plain"),
        pytest.param(lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False), id="before 1.6"),
        pytest.param(lambda state, path: torch.save({"epoch": 3, "name": "run", "state_dict": state}, path), id="state_dict"),
        pytest.param(lambda state, path: torch.save({"model": {f"module.{n}": t for n, t in state.items()}}, path), id="module."),
        pytest.param(lambda state, path: torch.save({n: torch.nn.Parameter(t) for n, t in state.items()}, path), id="parameters"),
        pytest.param(save_file, id="safetensors"),
    ],
)
def test_openai_states_give_the_same_embeddings(
    write: Callable[[State, Path], None], clip: OpenAIClip, converted: Callable[..., Conversion], tmp_path: Path
) -> None:
    write(state_of(clip), tmp_path / "weights.pt")
    conversion = converted(tmp_path / "weights.pt", format="openai")
    assert_same(conversion.model, clip)
    assert conversion.format == "openai" and not conversion.left_out and not conversion.changes
    assert conversion.model.spec.mean == CLIP_MEAN and conversion.model.spec.std == CLIP_STD
    assert conversion.model.clip.logit_scale.item() == pytest.approx(clip.logit_scale.item())


def test_torchscript_archives_give_the_same_embeddings(
    clip: OpenAIClip, torchscript: Path, converted: Callable[..., Conversion]
) -> None:
    conversion = converted(torchscript)
    assert conversion.format == "openai"
    assert conversion.left_out == ("context_length (1 tensor)", "input_resolution (1 tensor)", "vocab_size (1 tensor)")
    assert_same(conversion.model, clip)
    named = read_tensors(torchscript).tensors
    assert all(torch.equal(named[name], tensor) for name, tensor in clip.state_dict().items())


def test_half_precision_archives_are_read_as_float32(vocabulary: int, converted: Callable[..., Conversion], tmp_path: Path) -> None:
    clip = OpenAIClip(vocabulary=vocabulary)
    path = write_torchscript(clip, tmp_path / "ViT.pt", half=True)
    clip.half().float()  # the weights rounded to float16
    model = converted(path).model
    assert model.clip.dtype == torch.float32
    assert_same(model, clip)


def test_the_reference_gives_the_same_embeddings_without_its_heads(
    clip: OpenAIClip, converted: Callable[..., Conversion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_reference(clip, tmp_path / "checkpoint_best.pth", monkeypatch)
    with zipfile.ZipFile(path) as archive:
        content = archive.read("checkpoint_best/data.pkl")
    assert "easydict EasyDict" in {arg for code, arg, _ in pickletools.genops(content) if code.name == "GLOBAL"}
    conversion = converted(path)
    assert_same(conversion.model, clip)
    assert conversion.format == "tbps-clip-reference"
    assert {"simclr_mlp (1 tensor)", "classifier (2 tensors)", "mlm_head (1 tensor)", "ln_post (1 tensor)"} <= set(
        conversion.left_out
    )
    assert conversion.model.spec.mean == IMAGENET_MEAN and conversion.model.spec.std == IMAGENET_STD
    assert "easydict" not in sys.modules


def test_irra_gives_the_same_embeddings_at_its_input_size(
    vocabulary: int, converted: Callable[..., Conversion], tmp_path: Path
) -> None:
    clip = OpenAIClip(grid=(6, 2), vocabulary=vocabulary)
    rest = {"optimizer": {}, "epoch": 60, "args": argparse.Namespace(img_size=(48, 16))}
    torch.save({"model": irra_state(clip) | heads(), **rest}, tmp_path / "best.pth")
    conversion = converted(tmp_path / "best.pth")
    assert conversion.format == "irra" and "classifier (2 tensors)" in conversion.left_out
    assert (conversion.model.spec.height, conversion.model.spec.width) == (48, 16)
    assert conversion.model.spec.mean == CLIP_MEAN
    assert conversion.model.clip.logit_scale.exp().item() == pytest.approx(50)
    assert any("logit_scale" in change for change in conversion.changes)
    assert_same(conversion.model, clip)
    conversion.model.save(tmp_path / "folder")
    assert_same(load(tmp_path / "folder"), clip)
    plain = CLIPModel.from_pretrained(tmp_path / "folder")
    with torch.no_grad():
        found = plain.get_image_features(pixels(48, 16), interpolate_pos_encoding=True).pooler_output
        torch.testing.assert_close(found, clip.encode_image(pixels(48, 16)), atol=2e-5, rtol=2e-5)


def test_the_activation_of_an_open_clip_model_must_be_given(
    vocabulary: int, converted: Callable[..., Conversion], tmp_path: Path
) -> None:
    clip = OpenAIClip(vocabulary=vocabulary, activation=torch.nn.GELU)
    torch.save(state_of(clip) | {"logit_bias": torch.zeros([])}, tmp_path / "open_clip_pytorch_model.bin")
    for settings in ({}, {"format": "open_clip"}):
        with pytest.raises(ModelError, match="--activation gelu"):
            converted(tmp_path / "open_clip_pytorch_model.bin", **settings)
    conversion = converted(tmp_path / "open_clip_pytorch_model.bin", activation="gelu")
    assert conversion.format == "open_clip" and conversion.left_out == ("logit_bias (1 tensor)",)
    assert_same(conversion.model, clip)
    quick = converted(tmp_path / "open_clip_pytorch_model.bin", activation="quick_gelu").model
    assert (image_features(quick.clip, pixels()) - clip.encode_image(pixels())).abs().max() > 1e-3


def test_a_converted_folder_opens_in_plain_transformers(
    clip: OpenAIClip, converted: Callable[..., Conversion], tmp_path: Path
) -> None:
    torch.save(state_of(clip), tmp_path / "weights.pt")
    converted(tmp_path / "weights.pt", **QUICK).model.save(tmp_path / "folder")
    plain, rows = CLIPModel.from_pretrained(tmp_path / "folder"), tokens(clip.token_embedding.num_embeddings)
    with torch.no_grad():
        images, texts = clip(pixels(), rows)
        torch.testing.assert_close(plain.get_image_features(pixels()).pooler_output, images, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(plain.get_text_features(rows).pooler_output, texts, atol=2e-5, rtol=2e-5)
    assert load(tmp_path / "folder").encode_texts(["a woman in a red coat"]).shape == (1, 32)


def test_a_hugging_face_folder_keeps_its_embeddings(tiny_model_folder: Path) -> None:
    conversion = convert(str(tiny_model_folder), ConvertSettings())
    assert conversion.format == "huggingface" and not conversion.changes
    assert conversion.model.fingerprint == load(tiny_model_folder).fingerprint


def test_other_head_widths_of_open_clip() -> None:
    for width, heads_wanted in ((768, 12), (1024, 16), (1280, 16), (1408, 16), (1664, 16)):
        state = {
            "visual.conv1.weight": torch.empty(width, 3, 14, 14, device="meta"),
            "visual.positional_embedding": torch.empty(257, width, device="meta"),
            "visual.proj": torch.empty(width, 1024, device="meta"),
            "token_embedding.weight": torch.empty(49408, 1024, device="meta"),
            "positional_embedding": torch.empty(77, 1024, device="meta"),
            "text_projection": torch.empty(1024, 1024, device="meta"),
            "visual.transformer.resblocks.0.mlp.c_fc.bias": torch.empty(6144, device="meta"),
            "transformer.resblocks.0.mlp.c_fc.bias": torch.empty(4096, device="meta"),
        }
        shape = Shape.of(state, Path("open_clip.bin"))
        assert (shape.image.heads, shape.text.heads, shape.image.hidden) == (heads_wanted, 16, 6144)


# -------------------------------------------------------------------------------------- other sizes


@pytest.mark.parametrize(("old", "new"), [((4, 4), (6, 2)), ((6, 2), (4, 4)), ((3, 5), (7, 2)), ((1, 4), (3, 3)), ((4, 4), (4, 4))])
def test_image_positions_equal_the_slow_interpolation(old: tuple[int, int], new: tuple[int, int]) -> None:
    positions = torch.randn(1 + old[0] * old[1], 5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(resize_image_positions(positions, old, new), position_oracle.bilinear(positions, old, new))


@pytest.mark.parametrize(("old", "new"), [(77, 64), (16, 40), (5, 3), (3, 9), (8, 8)])
def test_text_positions_equal_the_slow_interpolation(old: int, new: int) -> None:
    positions = torch.randn(old, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = torch.tensor([position_oracle.linear(column, new) for column in positions.T.tolist()], dtype=torch.float64).T
    torch.testing.assert_close(resize_text_positions(positions, new), expected)


def test_transformers_interpolation_restores_any_grid_from_its_square() -> None:
    for height in range(1, 13):
        for width in range(1, 13):
            positions = torch.randn(1 + height * width, 3, generator=torch.Generator().manual_seed(5))
            square, side = square_image_positions(positions, (height, width)), max(height, width)
            assert square.shape == (1 + side * side, 3) and square.abs().max() < 4 * positions.abs().max()
            stored = square[1:].T.reshape(1, 3, side, side)
            used = torch.nn.functional.interpolate(stored, size=(height, width), mode="bicubic", align_corners=False)
            torch.testing.assert_close(used[0].flatten(1).T, positions[1:], atol=1e-5, rtol=0)
            assert torch.equal(square[0], positions[0])


@pytest.mark.parametrize(
    ("grid", "settings", "size"),
    [
        ((4, 4), {"image_size": (48, 16)}, (48, 16)),
        ((4, 4), {"image_size": (48, 48)}, (48, 48)),
        ((4, 4), {"image_size": (16, 40)}, (16, 40)),
        ((6, 2), {"image_size": (32, 32)}, (32, 32)),
        ((5, 3), {"image_size": (48, 24), "source_size": (40, 24)}, (48, 24)),
        ((3, 5), {"source_size": (24, 40)}, (24, 40)),
    ],
)
def test_another_input_size_uses_interpolated_positions(
    grid: tuple[int, int],
    settings: dict[str, object],
    size: tuple[int, int],
    vocabulary: int,
    converted: Callable[..., Conversion],
    tmp_path: Path,
) -> None:
    clip = OpenAIClip(grid=grid, vocabulary=vocabulary)
    torch.save(state_of(clip), tmp_path / "weights.pt")
    model = converted(tmp_path / "weights.pt", **QUICK, **settings).model
    assert (model.spec.height, model.spec.width) == size
    positions = clip.visual.positional_embedding.data
    clip.visual.positional_embedding.data = position_oracle.bilinear(positions, grid, (size[0] // 8, size[1] // 8))
    assert_same(model, clip)


@pytest.mark.parametrize("length", [8, 40])
def test_another_context_uses_interpolated_positions(
    length: int, vocabulary: int, converted: Callable[..., Conversion], tmp_path: Path
) -> None:
    clip = OpenAIClip(vocabulary=vocabulary)
    torch.save(state_of(clip), tmp_path / "weights.pt")
    conversion = converted(tmp_path / "weights.pt", context_length=length, **QUICK)
    assert conversion.changes == (f"text positions interpolated from 16 to {length} tokens",)
    longer = OpenAIClip(vocabulary=vocabulary, context=length)
    columns = clip.positional_embedding.data.T.tolist()
    state = state_of(clip) | {"positional_embedding": torch.tensor([position_oracle.linear(c, length) for c in columns]).T}
    longer.load_state_dict(state)
    assert conversion.model.context_length == length
    rows = tokens(vocabulary)[1:] if length == 40 else tokens(vocabulary)[2:]  # the end token must be within the context
    with torch.no_grad():
        found = text_features(conversion.model.clip, rows[:, :length])
        torch.testing.assert_close(found, longer.encode_text(rows[:, :length]), atol=2e-5, rtol=2e-5)


def test_a_folder_with_another_input_size_is_resized_from_the_positions_in_use(
    vocabulary: int, converted: Callable[..., Conversion], tmp_path: Path
) -> None:
    clip = OpenAIClip(grid=(6, 2), vocabulary=vocabulary)
    torch.save({"model": irra_state(clip)}, tmp_path / "best.pth")
    converted(tmp_path / "best.pth").model.save(tmp_path / "folder")
    assert_same(converted(tmp_path / "folder").model, clip)
    assert_same(converted(tmp_path / "folder", image_size=(48, 16)).model, clip)
    wide = converted(tmp_path / "folder", image_size=(24, 32)).model
    clip.visual.positional_embedding.data = position_oracle.bilinear(clip.visual.positional_embedding.data, (6, 2), (3, 4))
    assert_same(wide, clip)


# ------------------------------------------------------------------------------------------ tokenizer


def test_the_tokenizer_is_built_from_byte_pairs_only(clip: OpenAIClip, tiny_model_folder: Path, tmp_path: Path) -> None:
    pairs = json.loads((tiny_model_folder / "tokenizer.json").read_text())["model"]
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "vocab.json").write_text(json.dumps(pairs["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in pairs["merges"])
    (tmp_path / "pairs" / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    torch.save(state_of(clip), tmp_path / "weights.pt")
    model = convert(str(tmp_path / "weights.pt"), ConvertSettings.parse(QUICK), tmp_path / "pairs").model
    same = load(tiny_model_folder).tokenizer
    for caption in ("a woman in a red coat", "日本 café"):
        assert model.tokenizer(caption)["input_ids"] == same(caption)["input_ids"]


def test_the_tokenizer_is_found_in_the_cache_of_the_hub(
    clip: OpenAIClip, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    torch.save(state_of(clip), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"hf download openai/clip-vit-base-patch16 .* --local-dir clip-tokenizer"):
        convert(str(tmp_path / "weights.pt"), ConvertSettings.parse(QUICK))
    repository = tmp_path / "cache" / "models--openai--clip-vit-base-patch16"
    for folder in ("refs", "snapshots/abc"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (repository / "snapshots" / "abc" / name).write_bytes((tiny_model_folder / name).read_bytes())
    assert_same(convert(str(tmp_path / "weights.pt"), ConvertSettings.parse(QUICK)).model, clip)


def test_a_tokenizer_of_another_vocabulary_is_refused(
    vocabulary: int, converted: Callable[..., Conversion], tmp_path: Path
) -> None:
    for size, message in ((vocabulary + 5, "start and end token"), (vocabulary - 5, "belong to different models")):
        torch.save(state_of(OpenAIClip(vocabulary=size)), tmp_path / "weights.pt")
        with pytest.raises(ModelError, match=message):
            converted(tmp_path / "weights.pt", **QUICK)


# ------------------------------------------------------------------------------- what does not fit


def without(*starts: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if not name.startswith(starts)}


def changed(name: str, tensor: torch.Tensor) -> Callable[[State], State]:
    return lambda state: state | {name: tensor}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("visual.ln_post.bias"), r"missing visual\.ln_post\.bias$"),
        (without("visual.proj", "text_projection"), r"missing visual\.proj; missing text_projection"),
        (without("transformer.resblocks.1."), r"missing transformer\.resblocks\.1\.attn\.in_proj_bias.*and \d+ more"),
        (without("transformer."), r"missing every layer transformer\.resblocks\."),
        (without("visual."), "text tower only"),
        (lambda state: {n: t for n, t in state.items() if n.startswith("visual.")}, "image tower only"),
        (changed("visual.layer1.0.conv1.weight", torch.zeros(2)), "ResNet"),
        (changed("visual.trunk.stem.weight", torch.zeros(2)), r"an unsupported tower under visual\.trunk\."),
        (changed("fusion.weight", torch.zeros(2)), r"unexpected fusion\.weight"),
        (changed("visual.class_embedding", torch.zeros(7)), r"visual\.class_embedding is \(7,\) instead of \(128,\)"),
        (changed("visual.conv1.weight", torch.zeros(7)), "has 1 dimensions instead of 4"),
        (changed("visual.conv1.weight", torch.zeros(100, 3, 8, 8)), "width 100 of the image tower is not a multiple of 64"),
        (changed("visual.positional_embedding", torch.zeros(0, 128)), r"visual\.positional_embedding is empty"),
        (changed("visual.positional_embedding", torch.zeros(1, 128)), "no row for a patch"),
        (changed("visual.positional_embedding", torch.zeros(1 + 15, 128)), "15 patches of 8 pixels.*--source-size"),
        (changed("ln_final.bias", torch.zeros(64, dtype=torch.int64)), r"ln_final\.bias is torch\.int64"),
        (changed("ln_final.bias", torch.full((64,), torch.nan)), r"ln_final\.bias has values that are not finite"),
        (lambda state: {"conv.weight": torch.zeros(1)}, r"no CLIP towers; it begins with conv\.weight"),
        (lambda state: {"vision_model.x": torch.zeros(1)}, "give the folder"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    change: Callable[[State], State], message: str, clip: OpenAIClip, converted: Callable[..., Conversion], tmp_path: Path
) -> None:
    torch.save(change(state_of(clip)), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=message):
        converted(tmp_path / "weights.pt", **QUICK)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": (50, 16)}, "50 x 16 is not a multiple of the patch of 8 pixels"),
        ({"source_size": (48, 16)}, "16 patches of 8 pixels, but 48 x 16 pixels have 6 x 2 patches"),
        ({"format": "huggingface"}, "give the folder"),
        ({"format": "irra"}, "names of the format openai, not of irra"),
    ],
)
def test_sizes_and_formats_that_do_not_fit_are_refused(
    settings: dict[str, object], message: str, clip: OpenAIClip, converted: Callable[..., Conversion], tmp_path: Path
) -> None:
    torch.save(state_of(clip), tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=message):
        converted(tmp_path / "weights.pt", **QUICK, **settings)
    for wrong in ({"format": "onnx"}, {"context_length": 2}, {"image_size": (0, 8)}, {"activation": "relu"}):
        with pytest.raises(SettingsError):
            ConvertSettings.parse(wrong)


def test_a_format_that_contradicts_the_names_is_refused(
    clip: OpenAIClip, converted: Callable[..., Conversion], tmp_path: Path
) -> None:
    torch.save({"model": irra_state(clip)}, tmp_path / "best.pth")
    with pytest.raises(ModelError, match="names of the format irra, not of openai"):
        converted(tmp_path / "best.pth", format="openai")
    torch.save(irra_state(clip) | state_of(clip), tmp_path / "best.pth")
    with pytest.raises(ModelError, match=r"both with and without 'base_model\.'"):
        converted(tmp_path / "best.pth")


def test_folders_that_cannot_be_read_are_refused(
    tiny_model_folder: Path, converted: Callable[..., Conversion], tmp_path: Path
) -> None:
    for source, settings, message in (
        (tiny_model_folder, {"format": "irra"}, "is not a file"),
        (tiny_model_folder, {"activation": "gelu"}, "leave out both options"),
        (tmp_path / "absent", {}, "does not exist"),
        (tmp_path / "absent.pt", {}, "does not exist"),
        (tmp_path, {}, r"config\.json is missing"),
    ):
        with pytest.raises(ModelError, match=message):
            converted(source, **settings)


# ------------------------------------------------------------------------ hostile and damaged files


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, (f"open({self.path!r}, 'w')",))


@pytest.mark.parametrize("container", ["zip", "before 1.6", "torchscript"])
@pytest.mark.parametrize("place", ["state", "beside"])
def test_a_hostile_pickle_is_refused_by_name_and_not_executed(
    container: str, place: str, clip: OpenAIClip, converted: Callable[..., Conversion], tmp_path: Path
) -> None:
    owned, path = tmp_path / "owned", tmp_path / "weights.pt"
    state: dict[str, object] = {**state_of(clip)}
    tree = {"model": state | {"x": Hostile(owned)}} if place == "state" else {"model": state, "config": Hostile(owned)}
    if container == "torchscript":
        inner = pickle.dumps(Hostile(owned), protocol=2)[2:-1]
        module = b"c__torch__.clip\nCLIP\n)\x81}X\x05\x00\x00\x00scale" + inner + b"sb"
        content = b"\x80\x02" + (module if place == "state" else module.replace(inner, b"N") + inner + b"0") + b"."
        write_zip(path, content, **{"code/__torch__.py": b""})
    else:
        torch.save(tree, path, _use_new_zipfile_serialization=container == "zip")
    with pytest.raises(ModelError, match=r"is refused: its pickle names (\w+\.)?exec\b.*not executed"):
        converted(path, **QUICK)
    assert not owned.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cposix\nsystem\n(X\x04\x00\x00\x00true\x85R.", r"posix\.system"),
        (b"\x80\x04\x8c\x05torch\x8c\x10serialization.os\x93.", r"torch\.serialization\.os"),
        (b"c__torch\nModule\n.", r"__torch\.Module"),
        (b"ctorch.nn.modules.linear\nLinear\n.", r"torch\.nn\.modules\.linear\.Linear"),
        (b"\x80\x02ctorch\nload\n.", r"torch\.load"),
    ],
)
def test_every_name_that_is_not_allowed_is_refused(content: bytes, name: str, tmp_path: Path) -> None:
    write_zip(tmp_path / "weights.pt", content)
    with pytest.raises(ModelError, match=f"names {name},"):
        read_tensors(tmp_path / "weights.pt")


def write_zip(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED, **entries: bytes) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickled)
        for name, content in entries.items():
            archive.writestr(f"a/{name}", content)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (pickle.dumps({}, 2), "holds no tensors"),
        (pickle.dumps({"model": {}, "epoch": 3}, 2), "holds no tensors"),
        (pickle.dumps([1, 2], 2), "holds a list, not a model state"),
        (pickle.dumps({"epoch": 3}, 2), "'epoch' is a int"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "memo"),
        (b"\x80\x02X\x05", "damaged or truncated"),
        (b"", "damaged or truncated"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "no storage"),
        (b"\x80\x02]q\x00h\x00a.", "holds a list"),
        (b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.", "'model' is a dict"),
    ],
)
def test_pickles_without_a_state_are_refused(pickled: bytes, message: str, tmp_path: Path) -> None:
    write_zip(tmp_path / "weights.pt", pickled)
    with pytest.raises(ModelError, match=message):
        read_tensors(tmp_path / "weights.pt")


def test_invalid_archives_are_refused(clip: OpenAIClip, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    write_zip(path, pickle.dumps({}, 2), zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match="is compressed"):
        read_tensors(path)
    write_zip(path, pickle.dumps({}, 2), byteorder=b"big")
    with pytest.raises(ModelError, match="big-endian"):
        read_tensors(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.jpg", b"")
    with pytest.raises(ModelError, match="0 pickles"):
        read_tensors(path)
    torch.save(clip, path)
    with pytest.raises(ModelError, match=r"names tests\.oracles\.openai_clip\.OpenAIClip"):
        read_tensors(path)
    with pytest.raises(ModelError, match="is not a file"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "before 1.6", "safetensors", "torchscript"])
def test_truncated_files_are_refused(kind: str, clip: OpenAIClip, torchscript: Path, tmp_path: Path) -> None:
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pt")
    if kind == "safetensors":
        save_file(state_of(clip), path)
    elif kind == "torchscript":
        path.write_bytes(torchscript.read_bytes())
    else:
        torch.save(state_of(clip), path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for length in (0, 1, 5, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            read_tensors(path)
    if kind in ("zip", "torchscript"):
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0xFF
        path.write_bytes(flipped)
        with pytest.raises(ModelError, match="CRC"):
            read_tensors(path)


def test_any_damage_to_a_pickle_is_a_clear_error(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.randn(2, 3), "b": torch.randn(4)}, "epoch": 1}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        content = bytearray(entries["good/data.pkl"])
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            content[place] = rng.integers(0, 256)
        with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
            for name, value in (entries | {"good/data.pkl": bytes(content)}).items():
                archive.writestr(name, value)
        try:
            read_tensors(tmp_path / "bad.pt")
        except ModelError:
            refused += 1
    assert refused > 30
