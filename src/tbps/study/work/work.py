"""What a row of a table has done with a seed: settings that say it, and a function that does it in a folder."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import Field
from transformers import CLIPConfig

from tbps.config import Settings
from tbps.data.records import PersonDataset
from tbps.data.subset import with_train_identities
from tbps.model.surgery import pruned_config
from tbps.training.observer import Observer
from tbps.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Place:
    """Where and with what work is done. `model`: where it starts, None where the settings build one from random weights.

    `folder` is the work's own and holds what an interrupted run left; `stop` is asked after every update. `origin`: the study's own
    model, and `before`: the values of the work that came first, if any did, whose best model is then `model`.
    """

    dataset: PersonDataset
    model: str | Path | None
    device: str
    folder: Path
    observer: Observer
    stop: Callable[[], bool]
    origin: str | Path | None = None
    before: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        """The run folder of `tbps.training.trainer`; `run/best` is the model."""
        return self.folder / "run"


@dataclass(frozen=True, slots=True)
class Facts:
    """What came out. `values` are the same whenever and wherever the work is done; `measured` (seconds, bytes) are not."""

    values: Mapping[str, float | None]
    measured: Mapping[str, float]
    split: str
    queries: int
    gallery: int


class Work(Settings, ABC):
    """Settings of one kind of work; every kind is built on a training recipe.

    `identities`: the share of the training identities that are learned from, drawn by the seed (few shot).
    """

    kind: str
    train: TrainSettings
    identities: float = Field(1.0, gt=0, le=1)

    @property
    def before(self) -> "Work | None":
        """Work that always comes first, with the same seed and changes."""
        return None

    def refusal(self, towers: CLIPConfig) -> str:
        """Why it cannot be done from a model of such towers; empty where it can."""
        return ""

    @abstractmethod
    def run(self, place: Place) -> Facts | None:
        """Does it, going on with what is there; None where it was stopped before the end. Raises TbpsError."""

    def left_of(self, towers: CLIPConfig) -> CLIPConfig:
        """Of such towers what the recipe leaves, which is what learns. Raises SettingsError for layers that are not there."""
        return pruned_config(towers, self.train.prune)

    def settable(self) -> list[str]:
        """Dotted keys that `changed` knows: those of the recipe, and those of groups that are this kind's own."""
        return [*self.train.keys(), *self._own()]

    def changed(self, changes: Mapping[str, Any]) -> Self:
        """The same work with settings replaced, by the keys of `settable`."""
        known = self._own()
        own = {key: value for key, value in changes.items() if key in known}
        of_recipe = {key: value for key, value in changes.items() if key not in known}
        made = self.model_copy(update={"train": self.train.override(of_recipe)}) if of_recipe else self
        return made.override(own) if own else made

    def _own(self) -> list[str]:
        """A kind's single settings say which row it is; its groups say how it is done."""
        return [key for key in self.keys() if "." in key and not key.startswith("train.")]

    def seeded(self, seed: int) -> Self:
        """The same work under another seed."""
        return self.changed({"seed": seed})

    def dataset(self, whole: PersonDataset) -> PersonDataset:
        """What this work learns from and is judged on."""
        return with_train_identities(whole, self.identities, self.train.seed)
