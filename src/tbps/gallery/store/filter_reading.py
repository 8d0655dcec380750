"""Reads the text of a filter; the parser is imported with the first text."""

from tbps.gallery.store.filters import Written


def written(where: str) -> Written:
    """The condition that a text says. Raises QueryError on anything that is not of the language, or is too large."""
    from tbps.gallery.store.filter_text import parse  # the parser costs a twentieth of a second, and most searches need none

    return Written(parse(where), where)
