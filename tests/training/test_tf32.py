"""TF32 is off unless the precision is tf32; PyTorch's default turns it on for convolutions."""

from pathlib import Path

import pytest
import torch

from tbps.data.readers.folder import read
from tbps.model.bundle import load
from tbps.study.recipes import simplified_tbps_clip
from tbps.training.observer import Silent
from tbps.training.run import Run
from tbps.training.start import start_model


def _allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("precision", "allowed"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_a_run_turns_tf32_on_and_off(flags: Path, tiny_model_folder: Path, tmp_path: Path, precision: str, allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not allowed
    dataset, settings = read(flags), simplified_tbps_clip().override({"precision": precision, "batch_size": 4})
    Run(settings, start_model(settings, dataset, tiny_model_folder, "cpu"), dataset, tmp_path, Silent())
    assert _allowed() == (allowed, allowed)


def test_a_model_that_is_loaded_computes_in_float32(tiny_model_folder: Path) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    load(tiny_model_folder)
    assert _allowed() == (False, False)
