"""Removing, interpolating and dropping modules, against towers whose layers are called one by one."""

import copy
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from tbps.errors import ModelError, SettingsError
from tbps.model.bundle import load
from tbps.model.clip import LockSettings, bottom_parameters, build, image_features, text_features
from tbps.model.few_shot import add_few_shot, few_shot_of
from tbps.model.folder import FewShotSettings
from tbps.model.heads import ProjectionHead
from tbps.model.surgery import (
    Module,
    PruneSettings,
    led_back,
    modules,
    narrowed,
    pruned,
    pruned_config,
    removed,
    weights_of,
    without_layers,
)
from tests.support.shapes import model_shape

SHAPE = model_shape((48, 3, 3), (32, 4, 2), image_size=32, patch=16, context_length=12, embedding=24)


@pytest.fixture
def clip() -> CLIPModel:
    made = build(SHAPE, seed=3)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in made.parameters():  # transformers initialises biases with 0, which would hide mistakes
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return made


@pytest.fixture
def tokens() -> torch.Tensor:
    drawn = torch.randint(0, 98, (5, 12), generator=torch.Generator().manual_seed(1))
    drawn[:, 0], drawn[:, -1] = 98, 99
    return drawn


def pixels() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def text_by_hand(clip: CLIPModel, tokens: torch.Tensor, without: Module) -> torch.Tensor:
    """The text tower written out in tensor operations, without the residual branch of one module."""
    tower = clip.text_model
    states = tower.embeddings(input_ids=tokens)
    length = tokens.shape[1]
    mask = torch.full((length, length), -torch.inf).triu(1)
    for number, layer in enumerate(tower.encoder.layers, start=1):
        gone = () if number != without.layer else ("attention", "feed_forward") if without.part == "layer" else (without.part,)
        if "attention" not in gone:
            normed, attention = layer.layer_norm1(states), layer.self_attn
            parts = [p(normed).unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for p in
                     (attention.q_proj, attention.k_proj, attention.v_proj)]  # fmt: skip
            weights = (parts[0] @ parts[1].transpose(2, 3) * attention.head_dim**-0.5 + mask).softmax(3)
            states = states + attention.out_proj((weights @ parts[2]).transpose(1, 2).flatten(2))
        if "feed_forward" not in gone:
            states = states + layer.mlp(layer.layer_norm2(states))
    return clip.text_projection(tower.final_layer_norm(states)[:, -1])


@pytest.mark.parametrize("part", ["attention", "feed_forward", "layer"])
@torch.no_grad()
def test_a_removed_module_has_no_effect_and_is_restored(clip: CLIPModel, tokens: torch.Tensor, part: str) -> None:
    before, kept = text_features(clip, tokens), copy.deepcopy(clip.state_dict())
    module = Module("text", 2, part)
    with removed(clip, module):
        torch.testing.assert_close(text_features(clip, tokens), text_by_hand(clip, tokens, module), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(text_features(clip, tokens), before, atol=1e-3)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in clip.state_dict().items())


@torch.no_grad()
def test_the_image_tower_has_its_own_modules(clip: CLIPModel, tokens: torch.Tensor) -> None:
    images, texts = image_features(clip, pixels()), text_features(clip, tokens)
    with removed(clip, Module("image", 3, "layer")):
        whole = image_features(clip, pixels())
        assert torch.equal(text_features(clip, tokens), texts)
    with removed(clip, Module("image", 3, "attention")), removed(clip, Module("image", 3, "feed_forward")):
        assert torch.equal(image_features(clip, pixels()), whole)
    assert not torch.allclose(whole, images, atol=1e-3)


@torch.no_grad()
def test_interpolated_weights_are_between_the_trained_and_the_start_weights(clip: CLIPModel) -> None:
    start = {name: tensor + 1 for name, tensor in clip.state_dict().items()}
    module = Module("image", 2, "feed_forward")
    own = {name: tensor.clone() for name, tensor in weights_of(clip, module).items()}
    assert {name.split("layers.1.")[1] for name in own} == {
        f"{part}.{kind}" for part in ("mlp.fc1", "mlp.fc2", "layer_norm2") for kind in ("weight", "bias")
    }
    for share in (0.0, 0.25, 1.0):
        with led_back(clip, module, start, share):
            for name, tensor in weights_of(clip, module).items():
                torch.testing.assert_close(tensor, (1 - share) * start[name] + share * own[name])
    assert all(torch.equal(tensor, own[name]) for name, tensor in weights_of(clip, module).items())


def test_weights_are_restored_after_an_error(clip: CLIPModel) -> None:
    kept = copy.deepcopy(clip.state_dict())
    with pytest.raises(RuntimeError, match="inside"), removed(clip, Module("text", 1, "layer")):
        raise RuntimeError("inside")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in clip.state_dict().items())


def test_modules_are_numbered_from_one(clip: CLIPModel) -> None:
    assert len(modules(clip)) == 3 * (3 + 4)
    assert str(Module("text", 4, "feed_forward")) == "text layer 4 feed-forward"
    with pytest.raises(SettingsError, match="no text layer 5 attention: the text tower has 4 layers"):
        weights_of(clip, Module("text", 5, "attention"))


@torch.no_grad()
def test_dropping_layers_equals_removing_them(clip: CLIPModel, tokens: torch.Tensor, tmp_path: Path) -> None:
    dropped = without_layers(clip, image=[1], text=[2, 4])
    with removed(clip, Module("text", 2, "layer")), removed(clip, Module("text", 4, "layer")):
        torch.testing.assert_close(text_features(dropped, tokens), text_features(clip, tokens), atol=1e-6, rtol=1e-6)
    with removed(clip, Module("image", 1, "layer")):
        torch.testing.assert_close(image_features(dropped, pixels()), image_features(clip, pixels()), atol=1e-6, rtol=1e-6)
    dropped.save_pretrained(tmp_path)
    opened = CLIPModel.from_pretrained(tmp_path)
    torch.testing.assert_close(text_features(opened, tokens), text_features(dropped, tokens))
    assert clip.config.text_config.num_hidden_layers == 4


@pytest.mark.parametrize(
    ("numbers", "reason"), [([5], "do not exist"), ([0], "do not exist"), ([1, 2, 3, 4], "none would be left")]
)
def test_layers_that_cannot_be_dropped_are_refused(clip: CLIPModel, numbers: list[int], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        without_layers(clip, text=numbers)


@pytest.mark.parametrize(
    ("layers", "full", "simplified"),
    [
        ([], 149.2, 149.0),
        ([7], 146.0, 145.9),
        ([7, 8], 142.9, 142.7),
        ([3, 7, 8], 139.7, 139.6),
        ([3, 5, 7, 8], 136.6, 136.4),
        ([3, 5, 6, 7, 8], 133.4, 133.3),
    ],
)
def test_trainable_parameters_of_the_paper(layers: list[int], full: float, simplified: float) -> None:
    """Counts in millions, for ViT-B/16 with a locked patch projection; the full model has the head of self-supervision."""
    with torch.device("meta"):
        dropped = without_layers(CLIPModel(CLIPConfig(vision_config={"patch_size": 16})), text=layers)
        head = ProjectionHead(512)
    locked = sum(parameter.numel() for parameter in bottom_parameters(dropped, LockSettings()))
    count = sum(parameter.numel() for parameter in dropped.parameters()) - locked
    assert round(count / 1e6, 1) == simplified
    assert round((count + sum(parameter.numel() for parameter in head.parameters())) / 1e6, 1) == full


@torch.no_grad()
def test_a_copy_of_full_width_equals_the_model(clip: CLIPModel, tokens: torch.Tensor) -> None:
    same = narrowed(clip, image_heads=3, text_heads=2)
    assert all(torch.equal(tensor, clip.state_dict()[name]) for name, tensor in same.state_dict().items())
    torch.testing.assert_close(text_features(same, tokens), text_features(clip, tokens))


@torch.no_grad()
def test_a_narrow_copy_keeps_the_largest_weights(clip: CLIPModel, tokens: torch.Tensor, tmp_path: Path) -> None:
    attention = clip.vision_model.encoder.layers[0].self_attn
    attention.v_proj.weight[16:32] *= 100  # its second head
    narrow = narrowed(clip, image_heads=1, text_heads=1)
    assert (narrow.config.vision_config.hidden_size, narrow.config.vision_config.intermediate_size) == (16, 64)
    kept = narrow.vision_model.encoder.layers[0].self_attn.v_proj.weight
    channels = [int((attention.v_proj.weight[16] == value).nonzero()) for value in kept[0]]
    assert channels == sorted(channels)
    assert torch.equal(kept, attention.v_proj.weight[16:32][:, channels])
    wide, thin = clip.vision_model, narrow.vision_model
    assert torch.equal(thin.embeddings.patch_embedding.weight, wide.embeddings.patch_embedding.weight[channels])
    assert torch.equal(thin.post_layernorm.bias, wide.post_layernorm.bias[channels])
    assert torch.equal(narrow.visual_projection.weight, clip.visual_projection.weight[:, channels])
    assert text_features(narrow, tokens).shape == (5, 24)
    narrow.save_pretrained(tmp_path)
    torch.testing.assert_close(image_features(CLIPModel.from_pretrained(tmp_path), pixels()), image_features(narrow, pixels()))
    with pytest.raises(SettingsError, match="4 heads for the image tower, which has 3"):
        narrowed(clip, image_heads=4, text_heads=1)


@torch.no_grad()
def test_pruning_keeps_evenly_spaced_layers_and_narrows(clip: CLIPModel, tokens: torch.Tensor) -> None:
    whole = pruned(clip, PruneSettings())
    assert whole is not clip and torch.equal(text_features(whole, tokens), text_features(clip, tokens))
    listed = pruned(clip, PruneSettings(image_layers=(2,), text_layers=(1, 4)))
    assert torch.equal(text_features(listed, tokens), text_features(without_layers(clip, [2], [1, 4]), tokens))
    half = pruned(clip, PruneSettings(depth=0.5))  # the outer two of three layers, and of four
    assert torch.equal(image_features(half, pixels()), image_features(without_layers(clip, image=[2]), pixels()))
    assert torch.equal(text_features(half, tokens), text_features(without_layers(clip, text=[2, 3]), tokens))
    both = pruned(clip, PruneSettings(text_layers=(1,), depth=0.6, width=0.5))
    assert torch.equal(text_features(both, tokens), text_features(narrowed(without_layers(clip, [2], [1, 3]), 2, 1), tokens))
    one = pruned(clip, PruneSettings(depth=0.01, width=0.01))
    assert [len(tower.encoder.layers) for tower in (one.vision_model, one.text_model)] == [1, 1]
    assert one.config.vision_config.num_attention_heads == 1


def test_the_bundled_model_can_be_taken_apart() -> None:
    model = load(Path(__file__).parents[2] / "models/mannequin-tiny")
    for module in modules(model.clip):
        with removed(model.clip, module):
            rows = model.encode_texts(["a woman in a red coat"])
        assert abs(float((rows**2).sum()) - 1) < 1e-5


@pytest.mark.parametrize(
    "settings",
    [
        PruneSettings(),
        PruneSettings(image_layers=(2,), text_layers=(1, 4)),
        PruneSettings(depth=0.5),
        PruneSettings(width=0.5),
        PruneSettings(text_layers=(1,), depth=0.6, width=0.5),
        PruneSettings(depth=0.01, width=0.01),
    ],
)
def test_the_configuration_after_pruning_is_known_before(clip: CLIPModel, settings: PruneSettings) -> None:
    before = clip.config.to_dict()
    assert pruned_config(clip.config, settings).to_dict() == pruned(clip, settings).config.to_dict()
    assert clip.config.to_dict() == before


def test_configuration_and_model_refuse_the_same_settings(clip: CLIPModel) -> None:
    with pytest.raises(SettingsError, match="cannot drop layers"):
        pruned_config(clip.config, PruneSettings(text_layers=(5,)))


@pytest.mark.parametrize("added", [{"prompt": "a red coat"}, {"adapter_ratio": 0.4}])
def test_models_with_prompt_or_adapter_are_not_narrowed(tiny_model_folder: Path, added: dict[str, str | float]) -> None:
    model = load(tiny_model_folder)
    add_few_shot(model.clip, model.tokenizer, FewShotSettings.parse(added))
    with pytest.raises(ModelError, match=r"cannot be made narrower; narrow the backbone first.*prune\.width=1"):
        pruned(model.clip, PruneSettings(width=0.5))
    assert few_shot_of(pruned(model.clip, PruneSettings(depth=0.5))) == few_shot_of(model.clip)  # dropping layers is possible
