"""Settings refuse unknown keys, name the likely one, and have a fingerprint."""

import pytest

from tbps.config import Settings
from tbps.errors import SettingsError


class Inner(Settings):
    weight: float = 1.0
    label: str = "paper"


class Whole(Settings):
    width: int
    inner: Inner | None = None


class Outer(Settings):
    seed: int = 0
    inner: Inner = Inner()
    maybe: Inner | None = None
    whole: Whole | None = None


def test_override_parses_dotted_text_and_leaves_the_original() -> None:
    base = Outer()
    changed = base.override({"inner.weight": "0.5", "inner.label": "reference", "seed": 3})
    assert (changed.seed, changed.inner.weight, changed.inner.label) == (3, 0.5, "reference")
    assert base == Outer()
    assert base.override({"maybe": {"weight": 2}}).maybe == Inner(weight=2)
    assert changed.override({"maybe": "null"}).maybe is None


def test_a_key_into_an_absent_group_creates_the_group() -> None:
    assert Outer().override({"maybe.weight": "2"}).maybe == Inner(weight=2, label="paper")
    assert Outer().override({"maybe": "null", "maybe.label": "x", "maybe.weight": 3}).maybe == Inner(weight=3, label="x")
    assert Outer(maybe=Inner(label="kept")).override({"maybe.weight": 2}).maybe == Inner(weight=2, label="kept")
    assert Outer().override({"whole.inner.weight": 2, "whole.width": 5}).whole == Whole(width=5, inner=Inner(weight=2))
    with pytest.raises(SettingsError, match=r"'whole.width'.*Field required"):  # the group is validated as a whole
        Outer().override({"whole.inner.weight": 2})
    with pytest.raises(SettingsError, match=r"'maybe.weight': maybe = 5 holds no settings"):
        Outer().override({"maybe": 5, "maybe.weight": 2})


@pytest.mark.parametrize(
    ("key", "likely"),
    [
        ("inner.wieght", "inner.weight"),
        ("innr.weight", "inner.weight"),
        ("sed", "seed"),
        ("seed.x", "seed"),
        ("maybe.wieght", "maybe.weight"),
        ("whole.inner.lable", "whole.inner.label"),
    ],
)
def test_unknown_keys_are_refused_with_the_likely_one(key: str, likely: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown setting '{key}'.*did you mean '{likely}'"):
        Outer().override({key: 1})


def test_errors_of_invalid_values_name_key_and_value() -> None:
    with pytest.raises(SettingsError, match=r"'inner.weight' = 'heavy'"):
        Outer().override({"inner.weight": "heavy"})


def test_fingerprint_depends_on_every_value() -> None:
    prints = {Outer().fingerprint(), Outer(seed=1).fingerprint(), Outer(inner=Inner(weight=2)).fingerprint()}
    assert len(prints) == 3
    assert Outer().fingerprint() == Outer(seed=0).fingerprint()
