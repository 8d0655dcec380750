"""Kinds of work by name. To add a kind, write a class in a file of its own and add one line here."""

from collections.abc import Mapping
from typing import Any

from tbps.errors import SettingsError
from tbps.study.work.compressing import Compressing
from tbps.study.work.cost import Costing
from tbps.study.work.probing import Probing
from tbps.study.work.training import Training
from tbps.study.work.work import Work

KINDS: Mapping[str, type[Work]] = {
    "training": Training,
    "costing": Costing,
    "probing": Probing,
    "compressing": Compressing,
}


def parse_work(values: Mapping[str, Any]) -> Work:
    """Build work from the result of `model_dump`, of this version or an earlier one.

    Raises SettingsError for an unknown kind or setting.
    """
    kind = str(values.get("kind"))
    if kind not in KINDS:
        raise SettingsError(f"unknown kind of work {kind!r}; there are {', '.join(KINDS)}")
    return KINDS[kind].parse_stored(values)
