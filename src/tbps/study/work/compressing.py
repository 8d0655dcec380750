"""Retraining with the least contributing text layers frozen or dropped (paper: compression)."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, final

from pydantic import Field
from transformers import CLIPConfig

from tbps.errors import SettingsError
from tbps.model.surgery import pruned_config
from tbps.study.work.probing import Probing, least_text_layers
from tbps.study.work.training import train_in
from tbps.study.work.work import Place, Work, WorkOutcome
from tbps.training.settings import TrainSettings


@final
class Compressing(Work):
    """Train with the recipe, from the study's start model, with some text layers frozen or dropped.

    The layers are those with the smallest C1 + C2 in the probing of the same recipe and seed. Their numbers, from 1, are the values
    `chosen.1`, `chosen.2` and so on.
    """

    kind: Literal["compressing"] = "compressing"
    """Name of the kind."""
    layers: int = Field(ge=1)
    """How many text layers are frozen or dropped."""
    how: Literal["frozen", "dropped"]
    """Whether the layers keep their start weights or are removed."""

    @property
    def before(self) -> Work:
        """The probing by which the layers are chosen."""
        return Probing(train=self.train, identities=self.identities)

    def refusal(self, towers: CLIPConfig) -> str:
        """`Work.refusal`: the text tower needs more layers than are frozen or dropped."""
        return _refusal(pruned_config(towers, self.train.prune).text_config.num_hidden_layers, self.layers)

    def left_of(self, towers: CLIPConfig) -> CLIPConfig:
        """`Work.left_of`. Which layers are chosen is not known yet, but all have the same size."""
        return pruned_config(towers, self.settings(range(1, self.layers + 1)).prune)

    def run(self, place: Place) -> WorkOutcome | None:
        """`Work.run`."""
        there = sum(name.startswith("c1.text.") and name.endswith(".layer") for name in place.before)
        if refusal := _refusal(there, self.layers):
            raise SettingsError(refusal)
        chosen = least_text_layers(place.before, self.layers)
        trained = train_in(replace(place, model=place.origin), self.settings(chosen), self.dataset(place.dataset))
        if trained is None:
            return None
        shutil.rmtree(place.run / "checkpoints", ignore_errors=True)
        return replace(trained, values={**trained.values, **{f"chosen.{n}": layer for n, layer in enumerate(chosen, 1)}})

    def settings(self, chosen: Sequence[int]) -> TrainSettings:
        """Change the recipe so that these text layers, numbered from 1, are frozen or dropped."""
        return self.train.override({f"{'lock' if self.how == 'frozen' else 'prune'}.text_layers": tuple(chosen)})


def _refusal(there: int, asked: int) -> str:
    return "" if there > asked else f"the text tower has {there} layer{'s' if there > 1 else ''}"
