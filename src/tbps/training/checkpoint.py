"""Checkpoints: one safetensors file each, the JSON facts in its header, written atomically, the newest two kept.

One file, because a weight file and a JSON file beside it could be torn apart by a kill between the two writes.
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
    """Writes `step-NNNNNNNN.safetensors`; `settings` is the fingerprint that a restart must match."""
    target = folder / f"step-{state.step:08d}.safetensors"
    header = {"format": "pt", "settings": settings, "facts": json.dumps(state.facts())}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors().items()}
    with atomic_path(target) as temporary:
        save_file(tensors, temporary, metadata=header)
    for old in _found(folder)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return target


def restore_latest(folder: Path, state: TrainState, settings: str) -> bool:
    """Puts the newest checkpoint back into `state`; False where there is none.

    Raises CheckpointError when it is damaged or was written under other settings.
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
        raise CheckpointError(f"{newest} is damaged ({error}); delete it to go on from the one before") from error
    if header.get("settings") != settings:
        raise CheckpointError(f"{newest} was written under other settings; give another --out, or the settings of that run")
    state.restore(tensors, json.loads(header["facts"]))
    return True


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))
