"""Heads have the published sizes, and the cross-modal encoder uses both of its inputs."""

from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from tbps.errors import SettingsError
from tbps.model.bundle import load
from tbps.model.clip import LockSettings, bottom_parameters
from tbps.model.cross_modal import CrossModalEncoder
from tbps.model.heads import IdentityClassifier, ProjectionHead, label_of


def millions(*modules: torch.nn.Module) -> float:
    return sum(parameter.numel() for module in modules for parameter in module.parameters()) / 1e6


@pytest.fixture(scope="module")
def vit_b16() -> CLIPModel:
    text = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8, "vocab_size": 49408}
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 16}
    with torch.device("meta"):
        return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=512))


def test_parameter_counts_of_the_papers(vit_b16: CLIPModel) -> None:
    with torch.device("meta"):
        projection, cross, classifier = ProjectionHead(512), CrossModalEncoder(512, 49408), IdentityClassifier(512, 11003)
    locked = sum(parameter.numel() for parameter in bottom_parameters(vit_b16, LockSettings())) / 1e6
    assert round(millions(vit_b16), 1) == 149.6
    assert round(millions(vit_b16) - locked, 1) == 149.0
    assert round(millions(vit_b16, projection) - locked, 1) == 149.2
    # IRRA's 384 x 128 pixels are 192 patches instead of 196
    assert round(millions(vit_b16, cross, classifier) - 4 * 768 / 1e6, 1) == 194.5


def test_locked_layers_are_the_lowest(tiny_model_folder: Path) -> None:
    clip = load(tiny_model_folder).clip
    locked = {id(parameter) for parameter in bottom_parameters(clip, LockSettings(image_layers=1, text_layers=2))}
    names = {name for name, parameter in clip.named_parameters() if id(parameter) in locked}
    assert any(name.startswith("vision_model.encoder.layers.0.") for name in names)
    assert not any(name.startswith("vision_model.encoder.layers.1.") for name in names)
    assert any(name.startswith("text_model.encoder.layers.1.") for name in names)
    assert "text_model.embeddings.token_embedding.weight" in names and "visual_projection.weight" not in names
    assert {name for name in names if name.startswith("vision_model.embeddings")} == {
        "vision_model.embeddings.class_embedding",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
    }


def test_locking_more_layers_than_exist_is_refused(tiny_model_folder: Path) -> None:
    for wanted, said in ((3, "3"), ((1, 3), r"\(1, 3\)")):
        with pytest.raises(SettingsError, match=rf"lock\.text_layers = {said}, but the text tower has 2 layers"):
            bottom_parameters(load(tiny_model_folder).clip, LockSettings(text_layers=wanted))


def test_a_list_locks_only_the_listed_layers(tiny_model_folder: Path) -> None:
    clip, settings = load(tiny_model_folder).clip, LockSettings().override({"text_layers": "[2]", "patch_projection": False})
    locked = {id(parameter) for parameter in bottom_parameters(clip, settings)}
    found = {name for name, parameter in clip.named_parameters() if id(parameter) in locked}
    assert found == {name for name, _ in clip.named_parameters() if name.startswith("text_model.encoder.layers.1.")}
    assert LockSettings.parse(settings.model_dump(mode="json")) == settings


def test_the_cross_modal_encoder_depends_on_words_and_image() -> None:
    torch.manual_seed(0)
    encoder = CrossModalEncoder(32, 50, layers=2)
    text, image = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    seen = encoder(text, image)
    assert seen.shape == (2, 5, 32) and encoder.predict(seen[0]).shape == (5, 50)
    assert not torch.allclose(seen, encoder(text, image + torch.randn_like(image)))
    assert not torch.allclose(seen, encoder(text + torch.randn_like(text), image))
    alone = encoder(text[:1], image[:1])
    torch.testing.assert_close(alone[0], seen[0], atol=1e-5, rtol=1e-5)


def test_labels_are_positions_among_the_known_identities() -> None:
    known = torch.tensor([2, 5, 9, 11])
    assert label_of(torch.tensor([9, 2, 11, 5]), known).tolist() == [2, 0, 3, 1]
