import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbps.data.augment_text import TextAugmentation, augment_caption
from tbps.errors import CaptionError, SettingsError

PAPER = TextAugmentation()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(
    words=st.lists(st.text("abcé红", min_size=1, max_size=5), min_size=1, max_size=30),
    paraphrase=st.none() | st.just("another way to say it"),
    deletion=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_the_result_is_text_with_words_of_its_source_in_order(
    words: list[str], paraphrase: str | None, deletion: float, seed: int
) -> None:
    settings = TextAugmentation(paraphrase_probability=0.5, deletion_probability=deletion)
    result = augment_caption(" ".join(words), paraphrase, settings, rng(seed))
    assert isinstance(result, str)
    kept = result.split(" ")
    assert all(kept)
    sources = [words, *([paraphrase.split()] if paraphrase else [])]
    assert any(is_subsequence(kept, source) for source in sources)


def is_subsequence(part: list[str], whole: list[str]) -> bool:
    rest = iter(whole)
    return all(word in rest for word in part)


def test_one_word_survives_certain_deletion() -> None:
    certain = TextAugmentation(deletion_probability=1)
    assert augment_caption("man", None, certain, rng()) == "man"
    survivors = {augment_caption("a b c", None, certain, rng(seed)) for seed in range(60)}
    assert survivors == {"a", "b", "c"}


def test_disabled_and_zero_change_nothing() -> None:
    for settings in (TextAugmentation(enabled=False), TextAugmentation(paraphrase_probability=0, deletion_probability=0)):
        assert augment_caption("a man in red", "red man", settings, rng()) == "a man in red"


def test_rates_are_those_of_the_settings() -> None:
    stream = rng(1)
    caption, paraphrase = " ".join(["word"] * 20), " ".join(["other"] * 20)
    results = [augment_caption(caption, paraphrase, PAPER, stream) for _ in range(5000)]
    replaced = np.mean([text.startswith("other") for text in results])
    kept = np.mean([len(text.split()) for text in results]) / 20
    assert abs(replaced - 0.1) < 4 * np.sqrt(0.09 / 5000)
    assert abs(kept - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 100_000)


def test_a_missing_paraphrase_keeps_the_caption() -> None:
    always = TextAugmentation(paraphrase_probability=1, deletion_probability=0)
    assert augment_caption("a man", None, always, rng()) == "a man"
    assert augment_caption("a man", "one man", always, rng()) == "one man"


@pytest.mark.parametrize("empty", ["", "  "])
def test_text_without_words_is_refused(empty: str) -> None:
    always = TextAugmentation(paraphrase_probability=1)
    with pytest.raises(CaptionError):
        augment_caption(empty, None, PAPER, rng())
    with pytest.raises(CaptionError):
        augment_caption("a man", empty, always, rng())


def test_probabilities_above_one_are_refused() -> None:
    with pytest.raises(SettingsError):
        TextAugmentation.parse({"deletion_probability": 1.01})
