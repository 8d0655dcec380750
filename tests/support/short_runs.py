"""Short training runs on a CPU, and the checkpoints that they write."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from tbps.data.readers.folder import read
from tbps.training.observer import Silent
from tbps.training.run import Outcome
from tbps.training.settings import TrainSettings
from tbps.training.start import start_model
from tbps.training.trainer import train


def run(settings: TrainSettings, data: Path, model: Path, folder: Path, stop_after: int | None = None) -> Outcome:
    """Train on a data set of the layout `folder`; stop_after: number of updates after which the run is interrupted."""
    updates, dataset = iter(range(1, 100)), read(data)
    return train(
        settings, start_model(settings, dataset, model, "cpu"), dataset, folder, Silent(), lambda: next(updates) == stop_after
    )


def newest(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of the newest checkpoint of a run."""
    return load_file(sorted((folder / "checkpoints").iterdir())[-1])
