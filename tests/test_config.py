"""Settings refuse what they do not know and name the likely key."""

import pytest

from tbps.config import Settings
from tbps.errors import SettingsError


class Inner(Settings):
    weight: float = 1.0
    label: str = "paper"


class Outer(Settings):
    seed: int = 0
    inner: Inner = Inner()
    maybe: Inner | None = None


def test_override_parses_dotted_text_and_leaves_the_original() -> None:
    base = Outer()
    changed = base.override({"inner.weight": "0.5", "inner.label": "reference", "seed": 3})
    assert (changed.seed, changed.inner.weight, changed.inner.label) == (3, 0.5, "reference")
    assert base == Outer()
    assert base.override({"maybe": {"weight": 2}}).maybe == Inner(weight=2)
    assert changed.override({"maybe": "null"}).maybe is None


@pytest.mark.parametrize(
    ("key", "likely"), [("inner.wieght", "inner.weight"), ("innr.weight", "inner.weight"), ("sed", "seed"), ("seed.x", "seed")]
)
def test_unknown_keys_are_refused_with_the_likely_one(key: str, likely: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown setting '{key}'.*did you mean '{likely}'"):
        Outer().override({key: 1})


def test_wrong_values_name_key_and_value() -> None:
    with pytest.raises(SettingsError, match=r"'inner.weight' = 'heavy'"):
        Outer().override({"inner.weight": "heavy"})


def test_fingerprint_depends_on_every_value() -> None:
    prints = {Outer().fingerprint(), Outer(seed=1).fingerprint(), Outer(inner=Inner(weight=2)).fingerprint()}
    assert len(prints) == 3
    assert Outer().fingerprint() == Outer(seed=0).fingerprint()
