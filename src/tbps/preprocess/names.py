"""Names of files, cameras and people: which spellings mean the same.

A letter with an accent is one character in Unicode's composed form (NFC: keyboards of Linux and Windows) and two in the decomposed
form (NFD: file names of macOS); both look alike. Windows programs separate folders with a backslash. Texts are composed where they
enter, names of files stay as they are on the disk and are compared by `file_key`.
"""

import unicodedata

# Invisible and without meaning: zero-width space, word joiner, byte order mark. The zero-width joiners stay: Persian, Indic scripts
# and emoji need them inside words.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff"))
_AT_ENDS = "\u200c\u200d"


def composed(text: str) -> str:
    """The text in Unicode's composed form (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def label(text: str) -> str:
    """A camera's or person's name as it is stored: composed, without invisible characters and without space around it.

    A name of which nothing would be left stays as it is.
    """
    return composed(text if text.isascii() else text.translate(_INVISIBLE)).strip().strip(_AT_ENDS).strip() or text


def spellings(text: str) -> tuple[str, ...]:
    """The text as given, composed and decomposed, each once: what a stored value may be where it was not composed on entry."""
    return tuple(dict.fromkeys((text, composed(text), unicodedata.normalize("NFD", text))))


def file_key(name: str) -> str:
    """Equal for two names of one file: composed, with "/" between folders, without "./" and doubled slashes."""
    slashed = composed(name).replace("\\", "/")
    if "//" not in slashed and not slashed.startswith("./") and "/./" not in slashed:
        return slashed
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    return ("/" if slashed.startswith("/") else "") + "/".join(parts)
