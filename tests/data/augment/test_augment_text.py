import hashlib
from collections import Counter
from typing import get_args

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbps.data.augment.text import (
    STOP_WORDS,
    TextAugmentation,
    TextMethod,
    augment_caption,
    delete_words,
    edit_count,
    insert_words,
    replace_words,
    swap_words,
)
from tbps.errors import CaptionError, SettingsError

PAPER = TextAugmentation()
PATIENT = hypothesis.settings(deadline=None)  # a slow machine is not an error
METHODS: tuple[TextMethod, ...] = get_args(TextMethod)
KNOWN = {"jacket": ("anorak", "coat"), "black": ("dark",), "bag": ("carrier bag", "sack"), "the": ("thé",)}


def synonyms(word: str) -> tuple[str, ...]:
    return KNOWN.get(word, ())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@PATIENT
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


def test_one_word_remains_when_all_are_deleted() -> None:
    certain = TextAugmentation(deletion_probability=1)
    assert augment_caption("man", None, certain, rng()) == "man"
    survivors = {augment_caption("a b c", None, certain, rng(seed)) for seed in range(60)}
    assert survivors == {"a", "b", "c"}


def test_disabled_and_zero_change_nothing() -> None:
    for settings in (TextAugmentation(enabled=False), TextAugmentation(paraphrase_probability=0, deletion_probability=0)):
        assert augment_caption("a man in red", "red man", settings, rng()) == "a man in red"


def test_rates_equal_the_settings() -> None:
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


def test_draws_of_the_default_method_never_change() -> None:
    """Compares with captions recorded when no other method existed: a seed must give the same captions in every version."""
    digest = hashlib.sha256()
    for row in range(300):
        caption = " ".join(f"word{number}" for number in range(1 + row % 40))
        paraphrase = None if row % 7 == 0 else f"other {caption}"
        stream = rng(row)
        digest.update(augment_caption(caption, paraphrase, PAPER, stream).encode() + stream.bytes(8))
    assert digest.hexdigest() == "57e0e046c3fa4d65b0c8645ff499336fe6e02d3f37230618f003ca5a84a599b4"


@PATIENT
@given(
    words=st.lists(st.sampled_from([*KNOWN, "man", "jacket,", "(black)", "红", "café", "--", "a"]), min_size=1, max_size=30),
    paraphrase=st.none() | st.just("a sack"),
    method=st.sampled_from(METHODS),
    strength=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_every_method_gives_words_separated_by_single_spaces(
    words: list[str], paraphrase: str | None, method: TextMethod, strength: float, seed: int
) -> None:
    settings = TextAugmentation(method=method, paraphrase_probability=strength, deletion_probability=strength, edit_share=strength)
    result = augment_caption("  ".join(words), paraphrase, settings, rng(seed), synonyms)
    assert isinstance(result, str) and result
    assert result.split(" ") == result.split()
    assert result == augment_caption(" ".join(words), paraphrase, settings, rng(seed), synonyms)


@PATIENT
@given(
    word=st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=8),
    method=st.sampled_from(METHODS),
    seed=st.integers(0, 50),
)
def test_a_caption_of_one_unknown_word_stays(word: str, method: TextMethod, seed: int) -> None:
    settings = TextAugmentation(method=method, deletion_probability=1, edit_share=1)
    assert augment_caption(word, None, settings, rng(seed), lambda _: ()) == word


def test_back_translation_alone_deletes_nothing() -> None:
    settings = TextAugmentation(method="back_translation", paraphrase_probability=0.5, deletion_probability=1)
    results = Counter(augment_caption("a man in red", "red man there", settings, rng(seed)) for seed in range(400))
    assert set(results) == {"a man in red", "red man there"}
    assert abs(results["red man there"] - 200) < 4 * np.sqrt(100)


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("stacking", "back_translation")])
def test_other_methods_use_no_paraphrase(method: TextMethod) -> None:
    settings = TextAugmentation(method=method, paraphrase_probability=1)
    for seed in range(20):
        assert "other" not in augment_caption("a b c d", "other", settings, rng(seed), synonyms)
    assert not settings.uses_paraphrases


def test_settings_report_whether_a_method_needs_paraphrases_or_wordnet() -> None:
    paraphrases = {method for method in METHODS if TextAugmentation(method=method).uses_paraphrases}
    wordnet = {method for method in METHODS if TextAugmentation(method=method).uses_synonyms}
    assert paraphrases == {"stacking", "back_translation"}
    assert wordnet == {"synonym_replacement", "random_insertion", "eda"}
    assert not TextAugmentation(paraphrase_probability=0).uses_paraphrases
    for unused in (TextAugmentation(method="eda", enabled=False), TextAugmentation(method="eda", edit_share=0)):
        assert not unused.uses_synonyms
    assert augment_caption("a man", "other", TextAugmentation(method="none"), rng()) == "a man"


@pytest.mark.parametrize(
    ("words", "share", "count"),
    [(1, 0.05, 1), (19, 0.05, 1), (40, 0.05, 2), (59, 0.05, 2), (60, 0.05, 3), (25, 0.1, 2), (25, 0.2, 5), (25, 1, 25), (25, 0, 0)],
)
def test_a_caption_is_edited_alpha_times_its_length_but_at_least_once(words: int, share: float, count: int) -> None:
    assert edit_count(words, share) == count


@PATIENT
@given(length=st.integers(0, 40), probability=st.floats(0, 1), seed=st.integers(0, 1000))
def test_deletion_keeps_the_words_that_were_drawn_to_stay(length: int, probability: float, seed: int) -> None:
    words = [f"w{number}" for number in range(length + 1)]
    coins = rng(seed).random(len(words))
    expected = [word for word, coin in zip(words, coins, strict=True) if coin >= probability]
    result = delete_words(words, probability, rng(seed))
    assert result == expected if expected else (len(result) == 1 and result[0] in words)


@PATIENT
@given(length=st.integers(1, 30), count=st.integers(0, 30), seed=st.integers(0, 1000))
def test_swapping_applies_the_drawn_number_of_transpositions(length: int, count: int, seed: int) -> None:
    result = [int(word) for word in swap_words([str(number) for number in range(length)], count, rng(seed))]
    assert sorted(result) == list(range(length))
    if length == 1:
        return
    cycles = count_cycles(result)
    assert length - cycles <= count  # fewer transpositions would not suffice
    assert (length - cycles) % 2 == count % 2  # each transposition changes the parity: no word is swapped with itself


def count_cycles(permutation: list[int]) -> int:
    unseen, cycles = set(range(len(permutation))), 0
    while unseen:
        cycles += 1
        place = min(unseen)
        while place in unseen:
            unseen.remove(place)
            place = permutation[place]
    return cycles


def test_every_pair_of_words_is_equally_likely_to_be_swapped() -> None:
    results = Counter(" ".join(swap_words(["a", "b", "c", "d"], 1, rng(seed))) for seed in range(3000))
    assert len(results) == 6
    assert all(abs(count - 500) < 4 * np.sqrt(3000 * 5 / 36) for count in results.values())


@PATIENT
@given(
    words=st.lists(st.sampled_from([*KNOWN, "man", "jacket,", "(black)", "a"]), min_size=1, max_size=20),
    count=st.integers(0, 25),
    seed=st.integers(0, 1000),
)
def test_replacement_changes_the_drawn_number_of_words(words: list[str], count: int, seed: int) -> None:
    allowed = {
        "jacket": {"anorak", "coat"},
        "jacket,": {"anorak,", "coat,"},
        "black": {"dark"},
        "(black)": {"(dark)"},
        "bag": {"carrier bag", "sack"},
    }
    result = replace_words(words, count, synonyms, rng(seed))
    changed = [(old, new) for old, new in zip(words, result, strict=True) if old != new]
    assert all(new in allowed[old] for old, new in changed)
    different = {word.strip("(,)") for word in words if word in allowed}
    replaced = {old.strip("(,)"): new.strip("(,)") for old, new in changed}
    assert len(replaced) == min(count, len(different))
    for old, new in zip(words, result, strict=True):  # a word is replaced at all its occurrences, by one synonym
        assert new.strip("(,)") == replaced.get(old.strip("(,)"), old.strip("(,)"))


def test_a_chosen_word_is_replaced_wherever_it_occurs_as_in_eda() -> None:
    words = ["a", "black", "jacket", "and", "Black", "(black)", "bag"]
    results = {tuple(replace_words(words, 1, synonyms, rng(seed))) for seed in range(40)}
    dark = ("a", "dark", "jacket", "and", "dark", "(dark)", "bag")
    assert dark in results
    assert all(sum("dark" in word for word in result) in (0, 3) for result in results)


@PATIENT
@given(
    words=st.lists(st.sampled_from(["the", "man", "jacket,", "(black)", "a", "bag"]), min_size=1, max_size=20),
    count=st.integers(0, 25),
    seed=st.integers(0, 1000),
)
def test_insertion_adds_the_drawn_number_of_synonyms_of_words_of_the_caption(words: list[str], count: int, seed: int) -> None:
    result = insert_words(words, count, synonyms, rng(seed))
    added = Counter(result) - Counter(words)
    possible = {text for word in words if word not in STOP_WORDS for text in synonyms(word.strip("(,)"))}
    assert added.total() == len(result) - len(words) == (count if possible else 0)
    assert set(added) <= possible
    assert [word for word in result if word not in possible] == words


def test_words_places_and_synonyms_are_drawn_evenly() -> None:
    inserted = Counter(tuple(insert_words(["jacket", "man"], 1, synonyms, rng(seed))) for seed in range(3000))
    assert len(inserted) == 6
    assert all(abs(count - 500) < 4 * np.sqrt(3000 * 5 / 36) for count in inserted.values())
    replaced = Counter(tuple(replace_words(["jacket", "black"], 1, synonyms, rng(seed))) for seed in range(3000))
    expected = {("anorak", "black"): 0.25, ("coat", "black"): 0.25, ("jacket", "dark"): 0.5}
    assert replaced.keys() == expected.keys()
    assert all(abs(replaced[key] - 3000 * p) < 4 * np.sqrt(3000 * p * (1 - p)) for key, p in expected.items())


def test_eda_draws_one_of_four_edits() -> None:
    settings = TextAugmentation(method="eda", deletion_probability=1, paraphrase_probability=1)
    seen: Counter[str] = Counter()
    for seed in range(4000):
        words = augment_caption("jacket is on you", "other", settings, rng(seed), synonyms).split()
        if len(words) == 1:
            seen["deletion"] += 1
        elif len(words) == 5:
            seen["insertion"] += 1
        elif "jacket" not in words:
            seen["replacement"] += 1
        else:
            assert sorted(words) == ["is", "jacket", "on", "you"] and words != ["jacket", "is", "on", "you"]
            seen["swap"] += 1
    assert len(seen) == 4
    assert all(abs(count - 1000) < 4 * np.sqrt(750) for count in seen.values())


def test_strength_is_a_setting() -> None:
    words = ["jacket", *["man"] * 8, "black"] * 4
    for share, count in ((0.05, 2), (0.1, 4), (0.2, 8)):
        settings = TextAugmentation(method="random_insertion", edit_share=share)
        assert len(augment_caption(" ".join(words), None, settings, rng(), lambda word: (f"{word}s",)).split()) == 40 + count


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(SettingsError, match="synonym_replacement"):
        PAPER.override({"method": "synonyms"})
