"""Parses filters; the parser is imported when the first filter is read."""

from tbps.gallery.store.filters import Written


def written(where: str) -> Written:
    """Parses the text of a filter. Raises QueryError on text that is not in the filter language or exceeds its limits."""
    from tbps.gallery.store.filter_text import parse  # importing the parser takes 50 ms, and most searches have no filter

    return Written(parse(where), where)
