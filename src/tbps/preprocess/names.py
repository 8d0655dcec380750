"""Normalisation of names of files, cameras and people.

An accented letter is one character in Unicode's composed form (NFC: keyboards of Linux and Windows) and two in the decomposed form
(NFD: file names of macOS); both look alike. Windows programs separate folders with a backslash. Texts are composed on input; file
names keep the spelling on disk and are compared by `file_key`.
"""

import unicodedata

# Invisible characters without meaning: zero-width space, word joiner, byte order mark. Zero-width joiners stay: Persian, Indic
# scripts and emoji need them inside words.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff"))
_AT_ENDS = "\u200c\u200d"


def composed(text: str) -> str:
    """Returns the text in Unicode's composed form (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def label(text: str) -> str:
    """Normalises the name of a camera or person for storage: composed, without invisible characters and surrounding space.

    A name that would become empty is returned unchanged.
    """
    return composed(text if text.isascii() else text.translate(_INVISIBLE)).strip().strip(_AT_ENDS).strip() or text


def spellings(text: str) -> tuple[str, ...]:
    """Returns the distinct spellings of a text (as given, composed, decomposed) under which a value may have been stored."""
    return tuple(dict.fromkeys((text, composed(text), unicodedata.normalize("NFD", text))))


def file_key(name: str) -> str:
    """Returns a key that is equal for all spellings of a file name: composed, "/" between folders, no "./" or doubled slashes."""
    slashed = composed(name).replace("\\", "/")
    if "//" not in slashed and not slashed.startswith("./") and "/./" not in slashed:
        return slashed
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    return ("/" if slashed.startswith("/") else "") + "/".join(parts)
