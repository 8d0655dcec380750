"""Caption cleaning, the same for training, evaluation and search."""

import html
import unicodedata

import ftfy

from tbps.errors import CaptionError

MAX_WORDS = 77

_TO_SPACE = str.maketrans(dict.fromkeys('.!"()*#:;~', " "))
# Control, format and surrogate characters. Surrogates cannot be encoded as UTF-8, which tokenizers require.
_UNWRITABLE = {"Cc", "Cf", "Cs"}
# The only format character that separates words, in scripts without spaces. The others are dropped: they stand inside words
# (joiners, soft hyphens), forbid a break (word joiner, byte order mark) or set the writing direction.
_ZERO_WIDTH_SPACE = "\u200b"


def clean_caption(text: str) -> str:
    """Repairs mojibake and HTML entities, drops control characters, lower-cases, blanks . ! " ( ) * # : ; ~, keeps 77 words.

    Format characters are dropped too, except U+200B (zero width space), which becomes a space. The repair (`ftfy.fix_text`,
    `html.unescape` twice) is that of OpenAI's CLIP tokenizer, so that transformers' tokenizer gives the same tokens; the rest is
    the caption cleaning of TBPS-CLIP. Words are separated by single spaces.

    Raises CaptionError when no word is left.
    """
    return " ".join(caption_words(text)[:MAX_WORDS])


def caption_words(text: str) -> list[str]:
    """Returns the words of a cleaned caption without the limit of 77. Raises CaptionError where there are none."""
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
