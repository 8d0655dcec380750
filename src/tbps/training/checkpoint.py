"""Checkpoints: one safetensors file each, with JSON values in its header; the newest two are kept.

A checkpoint is a single file, written atomically: a process killed between writing two files would leave them inconsistent.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tbps.errors import CheckpointError
from tbps.storage import atomic_path
from tbps.training.state import TrainState

_KEPT = 2


def save_checkpoint(folder: Path, state: TrainState, settings: str) -> Path:
    """Write `step-NNNNNNNN.safetensors` and return it; `settings`: fingerprint that a resumed run must match."""
    target = folder / f"step-{state.step:08d}.safetensors"
    header = {"format": "pt", "settings": settings, "facts": json.dumps(state.facts())}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors().items()}
    with atomic_path(target) as temporary:
        save_file(tensors, temporary, metadata=header)
    for old in _found(folder)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return target


def restore_latest(folder: Path, state: TrainState, settings: str) -> bool:
    """Restore `state` from the newest checkpoint; returns False if there is none.

    Raises CheckpointError if it is damaged or was written with other settings.
    """
    found = _found(folder)
    if not found:
        return False
    newest = found[-1]
    try:
        with safe_open(newest, framework="pt") as stored:
            header = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{newest} is damaged ({error}); delete it to continue from the one before") from error
    if header.get("settings") != settings:
        raise CheckpointError(f"{newest} was written with other settings; give another --out, or the settings of that run")
    state.restore(tensors, json.loads(header["facts"]))
    return True


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))
