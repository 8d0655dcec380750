"""Schedules of the learning rate and the share of the soft labels (paper: implementation details)."""

import math

from pydantic import Field

from tbps.config import Settings


class ScheduleSettings(Settings):
    """Number of epochs, and a learning rate with linear warm-up and cosine decay."""

    epochs: int = Field(5, ge=1)
    """Passes over the training pairs."""
    warmup_epochs: float = Field(1.0, ge=0)
    """Epochs of linear increase from `initial_rate` to `peak_rate`."""
    initial_rate: float = Field(1e-6, ge=0)
    """Learning rate of the first update."""
    peak_rate: float = Field(1e-4, gt=0)
    """Learning rate after the warm-up."""
    final_rate: float = Field(5e-6, ge=0)
    """Learning rate at the end of the cosine decay."""


def learning_rate(step: int, steps_per_epoch: int, settings: ScheduleSettings) -> float:
    """Compute the learning rate of update `step`, counted from 0."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.initial_rate + (settings.peak_rate - settings.initial_rate) * step / warmup
    total = settings.epochs * steps_per_epoch
    progress = min(1.0, (step - warmup) / max(1.0, total - warmup))
    return settings.final_rate + (settings.peak_rate - settings.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


def soft_label_share(step: int, steps_per_epoch: int, maximum: float) -> float:
    """Compute the share alpha of the soft labels: linear from 0 to `maximum` in the first epoch, then constant (paper: trick 4)."""
    return maximum * min(1.0, step / steps_per_epoch)
