"""Profile a few real updates with PyTorch's profiler, on part of the data.

The trace opens in https://ui.perfetto.dev or chrome://tracing. It marks the phases of `PHASES` as "tbps: NAME".
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile, schedule

from tbps.data.records import PersonDataset
from tbps.distributed import rank
from tbps.model.bundle import PersonModel
from tbps.storage import atomic_path
from tbps.training.log import NoLog
from tbps.training.observer import Observer
from tbps.training.rehearsal import some_of
from tbps.training.run import Run
from tbps.training.settings import TrainSettings

_MARK = "tbps: "
PHASES = ("data", "augmentation", "encode image", "encode text", "losses", "backward", "optimizer")
_WARM_UP, _UPDATES = 3, 5
_COSTLIEST = 10


@dataclass(frozen=True, slots=True)
class Cost:
    """Calls and seconds per update of a phase, or of an operation without the operations that it calls.

    `device_seconds`: None on a CPU. `share`: share of the time of all phases or operations, on the device if there is one.
    """

    name: str
    calls: float
    seconds: float
    device_seconds: float | None
    share: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Costs per update of `PHASES`, in order, and of the ten most expensive operations. `trace`: file in Chrome's JSON format."""

    trace: Path
    updates: int
    phases: tuple[Cost, ...]
    operations: tuple[Cost, ...]


def profile_updates(
    settings: TrainSettings, model: PersonModel, dataset: PersonDataset, trace: Path, observer: Observer
) -> Profile:
    """Profile five updates after three warm-up updates; the first process writes the trace, and no other file remains.

    The updates change `model`; do not use it afterwards. Raises the errors of `tbps.training.trainer.train`.
    """
    on_device = model.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    plan = schedule(wait=0, warmup=_WARM_UP, active=_UPDATES, repeat=1)
    with tempfile.TemporaryDirectory() as folder:
        some = some_of(dataset, settings.batch_size * (_WARM_UP + _UPDATES))
        run = Run(settings, model, some, Path(folder), observer, cache=Path(folder))
        with profile(activities=activities, schedule=plan, acc_events=True) as watched:
            for _ in range(_WARM_UP + _UPDATES):
                run.update(NoLog())
                watched.step()
        run.read_losses()
    if rank() == 0:
        with atomic_path(trace) as temporary:
            watched.export_chrome_trace(str(temporary))
    found = list(watched.key_averages())
    marked = {event.key.removeprefix(_MARK): event for event in found if event.key.startswith(_MARK)}
    phases = _costs([(name, marked[name]) for name in PHASES], on_device, whole=True)
    names = {_MARK + name for name in PHASES}
    operations = _costs([(e.key, e) for e in found if e.key not in names and "ProfilerStep" not in e.key], on_device, whole=False)
    costliest = sorted(operations, key=lambda cost: -cost.share)[:_COSTLIEST]
    return Profile(trace, _UPDATES, phases, tuple(costliest))


def _costs(events: Sequence[tuple[str, FunctionEventAvg]], on_device: bool, whole: bool) -> tuple[Cost, ...]:
    """Compute the costs of events. `whole`: include the operations that they call."""
    host = [event.cpu_time_total if whole else event.self_cpu_time_total for _, event in events]  # microseconds
    device = [event.device_time_total if whole else event.self_device_time_total for _, event in events]
    decisive = device if on_device else host
    everything = sum(decisive) or 1
    scale = 1e-6 / _UPDATES
    return tuple(
        Cost(name, event.count / _UPDATES, scale * here, scale * there if on_device else None, weight / everything)
        for (name, event), here, there, weight in zip(events, host, device, decisive, strict=True)
    )
