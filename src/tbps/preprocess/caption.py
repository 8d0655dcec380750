"""Caption cleaning: the one form in which text reaches a tokenizer, in training, evaluation, export and search alike."""

import html
import unicodedata

import ftfy

from tbps.errors import CaptionError

MAX_WORDS = 77

_TO_SPACE = str.maketrans(dict.fromkeys('.!"()*#:;~', " "))
# Control, format and surrogate characters. Surrogates cannot be encoded as UTF-8, which tokenizers need.
_UNWRITABLE = {"Cc", "Cf", "Cs"}
# The one format character that separates words: where scripts write no spaces, it says where a word ends. All others stand within
# words (joiners, soft hyphens), forbid a break (word joiner, byte order mark) or direct the writing, and are dropped.
_ZERO_WIDTH_SPACE = "\u200b"


def clean_caption(text: str) -> str:
    """Repairs mojibake and HTML entities, drops control characters, lower-cases, blanks . ! " ( ) * # : ; ~, keeps 77 words.

    Format characters are dropped too, but for U+200B, a space without width, which is a space.

    The repair (`ftfy.fix_text`, `html.unescape` twice) is the one of OpenAI's CLIP tokenizer and makes transformers' tokenizer
    agree with it; the rest is the caption cleaning of TBPS-CLIP. Words are separated by single spaces.

    Raises CaptionError when no word is left.
    """
    return " ".join(caption_words(text)[:MAX_WORDS])


def caption_words(text: str) -> list[str]:
    """The words of a cleaned caption, also those beyond the first 77. Raises CaptionError when there is none."""
    repaired = html.unescape(html.unescape(ftfy.fix_text(text)))
    words = _drop_unwritable(repaired).lower().translate(_TO_SPACE).split()
    if not words:
        raise CaptionError(f"caption {_shortened(text)} has no word left after cleaning; describe the person in words")
    return words


def _drop_unwritable(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    text = text.replace(_ZERO_WIDTH_SPACE, " ")
    return "".join(c for c in text if c.isspace() or unicodedata.category(c) not in _UNWRITABLE)


def _shortened(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")
