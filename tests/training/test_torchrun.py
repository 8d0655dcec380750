"""Two processes under torchrun end with the weights of one process: same batches, averaged gradients, one log."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tbps.training.log import read_log

# Augmentation and dropout draw different random numbers in each process, so they are off.
SETTINGS = [
    "batch_size=16",
    "schedule.epochs=3",
    "schedule.peak_rate=1e-3",
    "image_augmentation.enabled=false",
    "text_attention_dropout=0",
    "losses.c_itc.weight=0.1",
    "losses.id.weight=0.2",
    "losses.mlm.weight=0.2",
    # With a small eps, Adam amplifies the rounding noise of gradients that are zero by symmetry (biases of the keys).
    "optimizer.eps=0.01",
]


def train(folder: Path, data: Path, model: Path, launcher: list[str], *extra: str) -> dict[str, torch.Tensor]:
    command = [*launcher, "-m", "tbps.cli", "train", "simplified_tbps_clip", "--data", "folder", "--root", str(data)]
    command += ["--model", str(model), "--out", str(folder), "--device", "cpu"]
    for assignment in (*SETTINGS, *extra):
        command += ["--set", assignment]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    newest = sorted((folder / "checkpoints").glob("*.safetensors"))[-1]
    return load_file(newest)


@pytest.mark.slow
def test_two_processes_end_with_the_weights_of_one(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    one = train(tmp_path / "one", flags, tiny_model_folder, [sys.executable])
    two = train(tmp_path / "two", flags, tiny_model_folder, torchrun, "micro_batch=4")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        # float32 sums are added in another order in every update
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("one", "two")]
    assert [record["step"] for record in logs[0]] == [record["step"] for record in logs[1]]
    told = 0
    for alone, shared in zip(*logs, strict=True):
        for term in {
            "loss",
            "n_itc",
            "r_itc",
            "c_itc",
            "id",
            "mlm",
        } & alone.keys():  # means over the batch, not those of one process
            assert shared[term] == pytest.approx(alone[term], rel=1e-4, abs=1e-5), f"{term} at update {alone['step']}"
            told += 1
    assert told > 5
    assert (tmp_path / "two" / "report.json").exists() and (tmp_path / "two" / "best" / "model.safetensors").exists()
