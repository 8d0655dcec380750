"""A training update never synchronises with the device: it reads no value back, and copies to the device do not block.

The towers and the batch are on PyTorch's `meta` device, where tensors have shapes but no values. An operation that reads a value
(`item`, `bool`, `tolist`, indexing by a mask) fails there. Copies from the host are checked by a dispatch mode.
"""

import traceback
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tbps.data.readers.folder import read
from tbps.errors import SettingsError
from tbps.study.recipes import simplified_tbps_clip
from tbps.training.log import NoLog
from tbps.training.observer import Silent
from tbps.training.run import Run
from tbps.training.start import start_model
from tbps.transfer import send

META = torch.device("meta")


class NoWaitingCopies(TorchDispatchMode):
    """Raises on blocking copies from the host."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        name = function.overloadpacket.__name__
        if name == "_to_copy" and args[0].device.type == "cpu" and torch.device(given.get("device") or "cpu") == META:
            sender = traceback.extract_stack(limit=12)  # Kornia copies without blocking on CUDA, but not on `meta`
            by_kornia = any(frame.name == "_to_device_nonblocking" for frame in sender)
            assert by_kornia or given.get("non_blocking"), f"a copy of {tuple(args[0].shape)} waits for the device"
        if name == "copy_" and args[0].device == META and args[1].device.type == "cpu" and args[1].ndim:
            assert given.get("non_blocking") or (len(args) > 2 and args[2]), f"a copy of {tuple(args[1].shape)} waits"
        return function(*args, **given)


class NoWaitingConstants(TorchFunctionMode):
    """Raises on `torch.tensor(values, device=...)`, which blocks until the values are copied."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if function in (torch.tensor, torch.as_tensor) and torch.device(given.get("device") or "cpu") == META:
            assert isinstance(args[0], torch.Tensor) and args[0].device == META, f"{args[0]} is copied to the device, which waits"
        return function(*args, **given)


VARIANTS: dict[str, dict[str, object]] = {
    "simplified": {},
    "every loss": {
        "losses.ss.weight": 0.4,
        "losses.ss.views": "both",
        "losses.mvs.views": "both",
        "losses.c_itc.weight": 0.1,
        "losses.sdm.weight": 0.2,
        "losses.tal.weight": 0.2,
        "losses.id.weight": 0.3,
        "losses.mlm.weight": 0.7,
        "losses.n_itc.soft_pass": "separate",
        "optimizer.clip_norm": 1.0,
    },
    "in parts": {"micro_batch": 6, "losses.mlm.weight": 0.7, "optimizer.matrices": "muon"},
    "two in one": {"pair_augmentation.method": "mixgen", "pair_augmentation.probability": 1},
    "stacking": {"image_augmentation.method": "stacking"},
    "policies": {"image_augmentation.method": "rand_augment"},
}


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replaces autocast, which is off in these runs, and the fused kernel of AdamW: `meta` supports neither."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **named: nullcontext())
    adamw = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *arguments, **named: adamw(*arguments, **{**named, "fused": False}))
    yield


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.usefixtures("on_meta")
def test_an_update_does_not_wait(variant: str, flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    settings = simplified_tbps_clip().override({"image": {}, "batch_size": 16, "schedule.epochs": 4} | VARIANTS[variant])
    data = read(flags)
    model = start_model(settings, data, tiny_model_folder, "cpu").to(META)
    run = Run(settings, model, data, tmp_path, Silent())
    with NoWaitingCopies(), NoWaitingConstants():
        run.update(NoLog())
        run.update(NoLog())
    assert run.state.step == 2
    with pytest.raises(RuntimeError, match="meta"):  # the third update ends the epoch, where the losses are read
        run.update(NoLog())


@pytest.mark.parametrize(
    "waits",
    [
        lambda there: float(there.sum()),
        lambda there: bool(there.any()),
        lambda there: there[there > 0],
        lambda there: there.tolist(),
        lambda there: there.cpu(),
        lambda there: torch.ones(3).to(there.device),
        lambda there: there.copy_(torch.ones(3)),
        lambda there: torch.tensor([1.0, 2.0], device=there.device),
    ],
)
def test_operations_that_wait_are_detected(waits: Any) -> None:
    there = torch.ones(3, device=META)
    with NoWaitingCopies(), NoWaitingConstants():
        assert send(torch.ones(3), META).device == META
        with pytest.raises((RuntimeError, NotImplementedError, AssertionError)):
            waits(there)


def test_sending_to_the_same_device_copies_nothing() -> None:
    here = torch.arange(3)
    assert send(here, torch.device("cpu")) is here


def test_the_error_for_a_loss_that_is_not_finite_names_the_update(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    settings = simplified_tbps_clip().override({"image": {}, "batch_size": 4, "schedule.epochs": 1})
    data = read(flags)
    run = Run(settings, start_model(settings, data, tiny_model_folder, "cpu"), data, tmp_path, Silent())
    for step in range(1, 10):
        run.update(NoLog())
        if step == 6:
            with torch.no_grad():
                run.model.clip.logit_scale.fill_(torch.nan)
    assert run.state.loss_count == 0  # losses are read at the end of the epoch only
    with pytest.raises(SettingsError, match=r"nan at update 7; lower schedule\.peak_rate"):
        run.save()
    assert not list(tmp_path.glob("checkpoints/*")) and run.state.loss_count == 6
