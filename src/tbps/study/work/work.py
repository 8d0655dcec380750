"""Work of one step: settings that describe it, and a method that runs it in a folder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field
from transformers import CLIPConfig

from tbps.config import Settings
from tbps.data.records import PersonDataset
from tbps.data.subset import with_train_identities
from tbps.errors import DataError
from tbps.model.surgery import pruned_config
from tbps.study.work.observer import WorkObserver
from tbps.study.work.operations import Estimate, TrainingData, parameter_count, update_flops
from tbps.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Place:
    """Data, model, device and folder of one piece of work.

    `model`: the model to start from; None if the settings build one from random weights. `folder`: the work's own folder, which may
    contain files of an interrupted attempt. `stop`: called after every update; true stops the work. `origin`: the study's start
    model. `before`: values of the work that was run first, if any; `model` is then the best model of that work.
    """

    dataset: PersonDataset
    model: str | Path | None
    device: str
    folder: Path
    observer: WorkObserver
    stop: Callable[[], bool]
    origin: str | Path | None = None
    before: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        """Run folder of `tbps.training.trainer`; the best model is in `run/best`."""
        return self.folder / "run"


@dataclass(frozen=True, slots=True)
class WorkOutcome:
    """Results of the work.

    `values` are the same on every machine; `measured` (seconds, bytes) are not. `split`: the split that was scored, with its
    numbers of queries and of gallery images.
    """

    values: Mapping[str, float | None]
    measured: Mapping[str, float]
    split: str
    queries: int
    gallery: int


class Work(Settings, ABC):
    """Settings of one kind of work. Every kind contains a training recipe."""

    kind: str
    """Name of the kind, which `step.json` records."""
    train: TrainSettings
    """Training recipe."""
    identities: float = Field(1.0, gt=0, le=1)
    """Share of the training identities to learn from, drawn by the seed (few shot)."""

    alone: ClassVar[bool] = False
    """Whether time and memory are measured, so that the work runs in its own process, with no other step beside it."""

    @abstractmethod
    def run(self, place: Place) -> WorkOutcome | None:
        """Run the work, or resume it from `place.folder`; None if it was stopped before the end. Raises TbpsError."""

    @property
    def before(self) -> "Work | None":
        """Work that is always run first, with the same seed and changes; None if there is none."""
        return None

    @property
    def legend(self) -> str:
        """Explanation of this kind's values for readers of a report; empty if they are only metrics."""
        return ""

    def refusal(self, towers: CLIPConfig) -> str:
        """Reason why the work is impossible with a model of this configuration; empty if it is possible."""
        return ""

    def left_of(self, towers: CLIPConfig) -> CLIPConfig:
        """Configuration of the trained model, after pruning. Raises SettingsError for layers that do not exist."""
        return pruned_config(towers, self.train.prune)

    def estimate(self, data: TrainingData, towers: CLIPConfig | None) -> Estimate:
        """Expected updates, operations and parameters. Raises DataError if the pairs do not fill a batch."""
        if data.pairs < self.train.batch_size:
            raise DataError(
                f"{data.pairs} training pairs do not fill a batch of {self.train.batch_size}; give a smaller --set batch_size=..."
            )
        updates = data.pairs // self.train.batch_size * self.train.schedule.epochs
        if towers is None:
            return Estimate(updates, None, None)
        return Estimate(updates, updates * self.update_flops(towers), self.parameters(towers, data.identities))

    def update_flops(self, towers: CLIPConfig) -> float:
        """Approximate floating-point operations of one update."""
        return update_flops(self.train, towers, self.left_of(towers))

    def parameters(self, towers: CLIPConfig, identities: int) -> int:
        """Number of parameters of the pruned towers and the losses' heads; `identities`: classes of the identity classifier."""
        return parameter_count(self.train, self.left_of(towers), identities)

    def settable(self) -> list[str]:
        """Dotted keys that `changed` accepts: those of the recipe, and those of this kind's own groups."""
        return [*self.train.keys(), *self._own()]

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """Copy the work with some settings replaced, by the keys of `settable`."""
        known = self._own()
        own = {key: value for key, value in changes.items() if key in known}
        of_recipe = {key: value for key, value in changes.items() if key not in known}
        made = self.model_copy(update={"train": self.train.override(of_recipe)}) if of_recipe else self
        return made.override(own) if own else made

    def _own(self) -> list[str]:
        """Dotted keys of this kind's own groups. Its single settings cannot be changed, because they identify the row."""
        return [key for key in self.keys() if "." in key and not key.startswith("train.")]

    def seeded(self, seed: int) -> Self:
        """Copy the work with another seed."""
        return self.changed({"seed": seed})

    def dataset(self, whole: PersonDataset) -> PersonDataset:
        """Reduce the data set to the training identities that this work learns from."""
        return with_train_identities(whole, self.identities, self.train.seed)
