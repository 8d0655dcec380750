"""Every training setting has a description."""

import pytest

from tbps.config import Settings, described
from tbps.study.work.kinds import KINDS
from tbps.training.settings import TrainSettings


@pytest.mark.parametrize("settings", [TrainSettings, *KINDS.values()])
def test_every_setting_has_a_description(settings: type[Settings]) -> None:
    found = {setting.name: setting.description for setting in described(settings)}
    assert [name for name, description in found.items() if not description] == []
    groups = {key.rpartition(".")[0] for key in settings.dotted()}
    assert set(settings.dotted()) - groups <= found.keys()


def test_descriptions_are_sentences_of_one_line() -> None:
    for setting in described(TrainSettings):
        assert setting.description.endswith(".") and len(setting.description) <= 140, setting.name
