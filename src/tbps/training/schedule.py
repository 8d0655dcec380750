"""The learning rate of every step and the ramp of the soft labels (paper: implementation details)."""

import math

from pydantic import Field

from tbps.config import Settings


class ScheduleSettings(Settings):
    """Linear from `initial_rate` to `peak_rate` over the first `warmup_epochs`, then cosine to `final_rate`."""

    epochs: int = Field(5, ge=1)
    warmup_epochs: float = Field(1.0, ge=0)
    initial_rate: float = Field(1e-6, ge=0)
    peak_rate: float = Field(1e-4, gt=0)
    final_rate: float = Field(5e-6, ge=0)


def learning_rate(step: int, steps_per_epoch: int, settings: ScheduleSettings) -> float:
    """The rate of update `step`, counted from 0."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.initial_rate + (settings.peak_rate - settings.initial_rate) * step / warmup
    total = settings.epochs * steps_per_epoch
    progress = min(1.0, (step - warmup) / max(1.0, total - warmup))
    return settings.final_rate + (settings.peak_rate - settings.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


def soft_label_share(step: int, steps_per_epoch: int, maximum: float) -> float:
    """alpha of the soft labels: linear from 0 to `maximum` during the first epoch, then constant (paper: trick 4)."""
    return maximum * min(1.0, step / steps_per_epoch)
