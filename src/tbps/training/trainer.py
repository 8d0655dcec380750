"""Train a model and write a run folder:

settings.json            settings of the run
log.jsonl, tensorboard/  log
checkpoints/             the newest two checkpoints, for a restart
best/                    model of the best epoch by validation Rank-1; of the last epoch if there is no validation
                         (`TrainSettings.learn_from`)
report.json, report.png  result
"""

from collections.abc import Callable
from pathlib import Path

from tbps.data.records import PersonDataset
from tbps.distributed import anyone, barrier, rank, world_size
from tbps.model.bundle import PersonModel
from tbps.training.log import NoLog, RunLog
from tbps.training.observer import Observer
from tbps.training.run import LOG_STEPS, Outcome, Run
from tbps.training.run_folder import as_begun, claim
from tbps.training.settings import TrainSettings


def train(  # noqa: PLR0913 - what to train, where the files go, and callbacks
    settings: TrainSettings,
    model: PersonModel,
    dataset: PersonDataset,
    folder: Path,
    observer: Observer,
    stop: Callable[[], bool] = lambda: False,
    *,
    cache: Path | None = None,
) -> Outcome:
    """Train `model` on the train split, validate after every epoch, and resume from the newest checkpoint in `folder`.

    `stop`: called after every update (with several processes after every tenth, and after an epoch); once it returns true, a
    checkpoint is written and the run returns unfinished. `cache`: folder of decoded images (default: `cache_folder`).

    A run started by an older version is continued as in that version: settings that it did not have get the values of
    `Settings.earlier`. Raises DataError if a split is missing, SettingsError if `folder` holds another run, StorageError if it
    cannot be written.
    """
    settings = as_begun(folder, settings)
    barrier()  # every process has read settings.json before it is written
    if rank() == 0:
        claim(folder, settings)
    barrier()
    run = Run(settings, model, dataset, folder, observer, cache=cache)
    with RunLog(folder, run.state.step) if rank() == 0 else NoLog() as log:
        while run.state.step < run.steps:
            run.update(log)
            ended = run.state.step % run.steps_per_epoch == 0
            if ended:
                run.validate(log)
            asked = ended or world_size() == 1 or run.state.step % LOG_STEPS == 0  # processes must stop at the same update
            stopped = asked and anyone(stop(), model.device)
            if ended or stopped or run.state.step % settings.checkpoint_steps == 0:
                run.save()
            if stopped and run.state.step < run.steps:
                return run.outcome(False, None)
    return run.report()
