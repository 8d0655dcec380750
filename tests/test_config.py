"""Settings refuse unknown keys and suggest the likely one; they have a fingerprint and descriptions."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from tbps.config import DescribedSetting, Settings, described
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


def test_override_parses_dotted_keys_and_text_and_does_not_change_the_original() -> None:
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
def test_errors_for_unknown_keys_suggest_the_likely_one(key: str, likely: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown setting '{key}'.*did you mean '{likely}'"):
        Outer().override({key: 1})


def test_errors_of_invalid_values_name_key_and_value() -> None:
    with pytest.raises(SettingsError, match=r"'inner.weight' = 'heavy'"):
        Outer().override({"inner.weight": "heavy"})


def test_fingerprint_depends_on_every_value() -> None:
    prints = {Outer().fingerprint(), Outer(seed=1).fingerprint(), Outer(inner=Inner(weight=2)).fingerprint()}
    assert len(prints) == 3
    assert Outer().fingerprint() == Outer(seed=0).fingerprint()


class Group(Settings):
    share: Annotated[float, Field(gt=0)] = 0.5
    """Share of the rows.

    Only the first paragraph is the description.
    """
    kind: Literal["one", "two"] = "one"
    """Which of
    the two."""


class Heir(Group):
    size: int | None = Field(None, ge=1, description="Rows together.")
    rest: tuple[int, ...] = (1, 2)


class Described(Settings):
    name: str
    """Required."""
    always: Group = Group(share=0.25)
    """Groups that are always there have no line of their own."""
    maybe: Heir | None = None
    """A group that may be absent."""


def test_every_setting_is_described_with_type_default_and_the_docstring_below_it() -> None:
    assert described(Described) == [
        DescribedSetting("name", "str", "", "Required."),
        DescribedSetting("always.share", "float > 0", "0.25", "Share of the rows."),
        DescribedSetting("always.kind", '"one" or "two"', '"one"', "Which of the two."),
        DescribedSetting("maybe", "group or null", "null", "A group that may be absent."),
        DescribedSetting("maybe.share", "float > 0", "0.5", "Share of the rows."),
        DescribedSetting("maybe.kind", '"one" or "two"', '"one"', "Which of the two."),
        DescribedSetting("maybe.size", "int >= 1 or null", "null", "Rows together."),
        DescribedSetting("maybe.rest", "list of int", "[1, 2]", ""),
    ]


def test_the_values_of_a_settings_object_are_its_defaults() -> None:
    values = {line.name: line.default for line in described(Described(name="x", maybe=Heir(share=2, size=7)))}
    assert values == {
        **{"name": '"x"', "always.share": "0.25", "always.kind": '"one"', "maybe": "{...}"},
        **{"maybe.share": "2.0", "maybe.kind": '"one"', "maybe.size": "7", "maybe.rest": "[1, 2]"},
    }
