"""LoRA against its formula W + (alpha / rank) B A: only adapters are trained, and merging them gives a plain CLIP."""

import copy
import re
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
import torch
from torch.func import functional_call
from transformers import CLIPModel

from tbps.errors import MissingDependencyError
from tbps.model.bundle import load
from tbps.model.clip import image_features, text_features
from tbps.model.lora import LoraSettings, add_adapters, merge_adapters

PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TOKENS = torch.tensor([[553, 20, 30, 554], [553, 7, 554, 554], [553, 100, 101, 554]])


def adapted(folder: Path, settings: LoraSettings, moved: bool = True) -> CLIPModel:
    """Adapters on the tiny model; `moved`: with random B, as after some training."""
    clip = load(folder).clip
    add_adapters(clip, settings, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in clip.named_parameters():
        if moved and ".lora_B." in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return clip


def embeddings(clip: CLIPModel) -> torch.Tensor:
    return torch.cat([image_features(clip, PIXELS.to(clip.dtype)), text_features(clip, TOKENS)])


def adapters(clip: CLIPModel) -> dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    """Name of the plain matrix -> A, B."""
    return {
        name.replace("lora_A.default.", ""): (a, clip.get_parameter(name.replace("lora_A", "lora_B")))
        for name, a in clip.named_parameters()
        if ".lora_A." in name
    }


def test_embeddings_and_gradients_are_those_of_the_formula(tiny_model_folder: Path) -> None:
    settings = LoraSettings(rank=3, alpha=12, matrices="both")
    clip = adapted(tiny_model_folder, settings).double()
    plain = load(tiny_model_folder).clip.double().requires_grad_(False)
    assert len(adapters(clip)) == 2 * 2 * 6
    factors = {name: tuple(p.detach().clone().requires_grad_() for p in pair) for name, pair in adapters(clip).items()}
    weights = {name: plain.get_parameter(name) + 12 / 3 * b @ a for name, (a, b) in factors.items()}

    class Formula(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.clip = plain

        def forward(self) -> torch.Tensor:
            return embeddings(self.clip)

    expected = functional_call(Formula(), {f"clip.{name}": weight for name, weight in weights.items()}, ())
    found = embeddings(clip)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)  # float64 in another order
    direction = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for result in (found, expected):
        torch.autograd.backward(result, direction)
    for name, pair in adapters(clip).items():
        for mine, oracle in zip(pair, factors[name], strict=True):
            assert mine.grad is not None and bool(mine.grad.any())
            torch.testing.assert_close(mine.grad, oracle.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("towers", ["image", "text", "both"])
@pytest.mark.parametrize(("matrices", "parts"), [("attention", r"self_attn\.\w+"), ("feed_forward", r"mlp\.\w+")])
def test_only_the_chosen_matrices_and_the_temperature_learn(
    tiny_model_folder: Path, matrices: str, towers: str, parts: str
) -> None:
    clip = adapted(tiny_model_folder, LoraSettings.parse({"matrices": matrices, "towers": towers}))
    tower = {"image": "vision_model", "text": "text_model", "both": r"\w+_model"}[towers]
    wanted = {f"{n}.weight" for n, m in load(tiny_model_folder).clip.named_modules() if isinstance(m, torch.nn.Linear)}
    wanted = {name for name in wanted if re.fullmatch(rf"{tower}\.encoder\.layers\.\d\.{parts}\.weight", name)}
    assert adapters(clip).keys() == wanted and wanted
    learning = {id(p) for p in clip.parameters() if p.requires_grad}
    assert learning == {id(p) for pair in adapters(clip).values() for p in pair} | {id(clip.logit_scale)}


def test_a_newly_adapted_model_equals_the_plain_one(tiny_model_folder: Path) -> None:
    clips = [adapted(tiny_model_folder, LoraSettings(), moved=False) for _ in range(2)]
    assert torch.equal(embeddings(clips[0]), embeddings(load(tiny_model_folder).clip))
    assert all(torch.equal(one, other) for one, other in zip(clips[0].parameters(), clips[1].parameters(), strict=True))


def test_merged_adapters_leave_a_plain_model(tiny_model_folder: Path) -> None:
    clip = adapted(tiny_model_folder, LoraSettings(matrices="both", dropout=0.5)).eval()
    expected = embeddings(clip)
    merged = merge_adapters(copy.deepcopy(clip))
    torch.testing.assert_close(embeddings(merged), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(embeddings(clip), expected) and len(adapters(clip)) == 24  # the original still has its adapters
    plain = load(tiny_model_folder).clip
    assert merged.state_dict().keys() == plain.state_dict().keys() and vars(merged).keys() == vars(plain).keys()
    assert not any(type(module).__module__.startswith("peft") for module in merged.modules())
    assert not torch.allclose(expected, embeddings(plain), atol=0.1)


def test_without_peft_the_installation_command_is_named(tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match=r"LoRA needs peft.*pip install -e '\.\[lora\]'"):
        add_adapters(load(tiny_model_folder).clip, LoraSettings(), seed=0)


def test_peft_does_not_install_torchvision(tiny_model_folder: Path) -> None:
    adapted(tiny_model_folder, LoraSettings())
    needed = [line for package in ("peft", "accelerate") for line in requires(package) or [] if "extra ==" not in line]
    assert needed and not any(line.startswith("torchvision") for line in needed)
    assert "torchvision" not in sys.modules
