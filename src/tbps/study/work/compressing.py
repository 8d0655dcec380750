"""Retraining with the text layers that contribute least frozen, or dropped (paper: compression)."""

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
from tbps.study.work.work import Facts, Place, Work
from tbps.training.settings import TrainSettings


@final
class Compressing(Work):
    """Trains by the recipe, from the study's own model, with `layers` text layers frozen or dropped: those with the smallest
    C1 + C2 in the same recipe's probing under the same seed. Values `chosen.1` and so on are their numbers, from 1.
    """

    kind: Literal["compressing"] = "compressing"
    layers: int = Field(ge=1)
    how: Literal["frozen", "dropped"]

    @property
    def before(self) -> Work:
        """The probing."""
        return Probing(train=self.train, identities=self.identities)

    def refusal(self, towers: CLIPConfig) -> str:
        """`Work.refusal`."""
        return _refusal(pruned_config(towers, self.train.prune).text_config.num_hidden_layers, self.layers)

    def left_of(self, towers: CLIPConfig) -> CLIPConfig:
        """`Work.left_of`; which layers go is not known before, but they are all of one size."""
        return pruned_config(towers, self.settings(range(1, self.layers + 1)).prune)

    def run(self, place: Place) -> Facts | None:
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
        """The recipe with those layers frozen or dropped."""
        return self.train.override({f"{'lock' if self.how == 'frozen' else 'prune'}.text_layers": tuple(chosen)})


def _refusal(there: int, asked: int) -> str:
    return "" if there > asked else f"the text tower has {there} layer{'s' if there > 1 else ''}"
