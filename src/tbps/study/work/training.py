"""Training a model and scoring it."""

import shutil
from pathlib import Path
from typing import Literal, final

from tbps.data.records import PersonDataset
from tbps.errors import SettingsError
from tbps.evaluation import Standing
from tbps.study.work.work import Place, Work, WorkOutcome
from tbps.training.log import read_log
from tbps.training.settings import TrainSettings
from tbps.training.start import start_model
from tbps.training.trainer import train


@final
class Training(Work):
    """Train with a recipe and score the best epoch's model on the test split."""

    kind: Literal["training"] = "training"
    """Name of the kind."""

    def run(self, place: Place) -> WorkOutcome | None:
        """`Work.run`. At the end the checkpoints are deleted; the best model stays."""
        trained = train_in(place, self.train, self.dataset(place.dataset))
        if trained is None:
            return None
        shutil.rmtree(place.run / "checkpoints", ignore_errors=True)
        return trained


def train_in(place: Place, settings: TrainSettings, dataset: PersonDataset) -> WorkOutcome | None:
    """Train in `place.run`, resuming an interrupted run; None if it was stopped."""
    start = start_model(settings, dataset, place.model, place.device)
    outcome = train(settings, start, dataset, place.run, place.observer, place.stop)
    if not outcome.finished:
        return None
    if outcome.standing is None:
        raise SettingsError("a step of the study is one process; start it without torchrun")
    values: dict[str, float | None] = {
        **metrics_of(outcome.standing),
        "val_r1": outcome.best.r1 if outcome.best else None,
        "best_epoch": outcome.best.epoch if outcome.best else settings.schedule.epochs,
        "updates": outcome.step,
        "parameters": outcome.parameters,
        "trained": outcome.trained,
    }
    report, split = outcome.standing.model, "test" if dataset.split("test").images else "val"
    measured = {"train_seconds": seconds_of_updates(place.run / "log.jsonl", settings.batch_size)}
    return WorkOutcome(values, measured, split, report.queries, report.gallery)


def metrics_of(standing: Standing) -> dict[str, float | None]:
    """Return the model's metrics in percent, and Rank-1 of chance and ceiling as `chance_r1` and `ceiling_r1`."""
    report = standing.model
    metrics = {"r1": report.r1, "r5": report.r5, "r10": report.r10, "map": report.map, "minp": report.minp}
    return {**metrics, "chance_r1": standing.chance.r1, "ceiling_r1": standing.ceiling.r1 if standing.ceiling else None}


def seconds_of_updates(log: Path, batch_size: int) -> float:
    """Seconds that the updates in a run's log took, without validation. Updates repeated after an interruption count once."""
    seconds, before = 0.0, 0.0
    for record in read_log(log):
        if record["kind"] == "train":
            step = float(record["step"])
            seconds += (step - before) * batch_size / float(record["pairs_per_second"])
            before = step
    return seconds
