"""`tbps convert`."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tbps.model.bundle import load
from tests.oracles.openai_clip import OpenAIClip

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def checkpoint(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """Checkpoint of IRRA for images of 48 x 16 pixels."""
    clip = OpenAIClip(grid=(6, 2), vocabulary=len(load(tiny_model_folder).tokenizer))
    state = {f"base_model.{name}": tensor for name, tensor in clip.state_dict().items() if name != "logit_scale"}
    torch.save({"model": state | {"classifier.weight": torch.zeros(9, 32)}, "epoch": 60}, tmp_path / "best.pth")
    return tmp_path / "best.pth"


def test_a_checkpoint_becomes_a_model_folder(run: Run, checkpoint: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    code, out, _ = run("convert", checkpoint, tmp_path / "irra", "--tokenizer", tiny_model_folder)
    out = " ".join(out.split())
    assert code == 0
    assert out.startswith("irra: image 2 layers of 128, text 3 layers of 64, patch 8")
    assert "left out: classifier (1 tensor)" in out and out.endswith("irra: 48 x 16 pixels, 16 tokens")
    options = ("--image-size", "32", "--context-length", "12", "--half")
    code, out, _ = run("convert", tmp_path / "irra", tmp_path / "square", *options)
    out = " ".join(out.split())
    assert code == 0
    assert "image positions interpolated from 6 x 2 to 4 x 4 patches" in out
    assert "text positions interpolated from 16 to 12 tokens" in out
    tall, square = load(tmp_path / "irra"), load(tmp_path / "square")
    assert (square.spec.height, square.spec.width, square.context_length) == (32, 32, 12)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("irra", "square")]
    assert sizes[1] < 0.6 * sizes[0]
    assert tall.fingerprint != square.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-size", "384*128"], "'384*128' is neither HxW nor N"),
        (["--image-size", "0"], "image_size.0"),
        (["--format", "onnx"], "'openai', 'open_clip'"),
        (["--activation", "relu"], "'quick_gelu' or 'gelu'"),
        (["--context-length", "2"], "context_length"),
        (["--tokenizer", "{tmp}"], "has no tokenizer"),
        (["--image-size", "50x16", "--tokenizer", "{model}"], "not a multiple of the patch of 8 pixels"),
        (["--source-size", "32", "--tokenizer", "{model}"], "12 patches of 8 pixels, but 32 x 32 pixels have 4 x 4 patches"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    options: list[str], message: str, run: Run, checkpoint: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    filled = [part.replace("{tmp}", str(tmp_path)).replace("{model}", str(tiny_model_folder)) for part in options]
    code, _, err = run("convert", checkpoint, tmp_path / "out", *filled)
    assert code == 2 and err.startswith("error: ") and message in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_a_folder_is_not_overwritten_by_its_own_conversion(run: Run, tiny_model_folder: Path) -> None:
    before = (tiny_model_folder / "model.safetensors").stat().st_mtime_ns
    code, _, err = run("convert", tiny_model_folder, tiny_model_folder, "--half")
    assert code == 2 and "give another folder to write" in " ".join(err.split())
    assert (tiny_model_folder / "model.safetensors").stat().st_mtime_ns == before
