import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbps.errors import CaptionError
from tbps.preprocess.caption import clean_caption


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("A Woman, in a RED coat.", "a woman, in a red coat"),
        ("  two\t\nlines\u2028 here ", "two lines here"),
        ('(hat) "cap" *bag* #1 a:b;c~d!', "hat cap bag 1 a b c d"),
        ("the man\u2019s jacket", "the man's jacket"),
        ("black &amp;amp; white", "black & white"),
        ("caf&eacute; sign", "café sign"),
        ("sheâ€™s walking", "she's walking"),
        ("t-shirt", "t-shirt"),
        ("man", "man"),
        ("一个穿红色外套的女人。", "一个穿红色外套的女人。"),
        ("red\u0000 \u0007coat\u001b[31m \u202eon\ufeff", "red coat on"),
        ("a 👍🏽 runner 🏃", "a 👍🏽 runner 🏃"),
        ("half \ud83d emoji", "half \ufffd emoji"),
    ],
)
def test_captions_are_cleaned(raw: str, clean: str) -> None:
    assert clean_caption(raw) == clean


def test_77_of_500_words_are_kept() -> None:
    words = [f"w{i}" for i in range(500)]
    assert clean_caption(" ".join(words)).split() == words[:77]


@pytest.mark.parametrize("raw", ["", "   ", "\n\t", "...!!", '"()*#:;~', "\u0000\u200b", "&#32;"])
def test_captions_without_a_word_are_refused(raw: str) -> None:
    with pytest.raises(CaptionError, match="no word left"):
        clean_caption(raw)


@given(st.text(max_size=300))
def test_any_text_is_refused_or_cleaned(raw: str) -> None:
    try:
        clean = clean_caption(raw)
    except CaptionError:
        return
    clean.encode()
    assert not set(clean) & set('.!"()*#:;~')
    assert clean == " ".join(clean.split())
    assert 1 <= len(clean.split()) <= 77
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs"} for c in clean)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a red\u200bcoat", "a red coat"),  # the zero width space separates words
        ("a red&#8203;coat &ZeroWidthSpace; bag", "a red coat bag"),
        ("\u200ba coat\u200b", "a coat"),
        ("\u200b\u200bred\u200b \u200bcoat", "red coat"),
        ("\u0645\u06cc\u200c\u0631\u0648\u062f", "\u0645\u06cc\u0631\u0648\u062f"),  # a non-joiner is part of a Persian word
        ("co\u00adat and co\u200dat, co\u2060at, co\ufeffat", "coat and coat, coat, coat"),  # soft hyphen, joiners, byte order mark
        ("\u200fred coat\u200e", "red coat"),
    ],
)
def test_only_the_zero_width_space_separates_words(text: str, cleaned: str) -> None:
    assert clean_caption(text) == cleaned
