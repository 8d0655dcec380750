"""Format grids and texts as GitHub Markdown; characters that Markdown or HTML would read as markup are escaped."""

import re
from collections.abc import Iterator

from tbps.study.report.grids import Grid


def markdown_rows(grid: Grid) -> Iterator[str]:
    """Yield the lines of a Markdown table; the first column is aligned left, all others right."""
    ruler = ("---", *["---:"] * (len(grid.headings) - 1))
    rows = ([markdown_text(cell) for cell in cells] for cells in grid.rows)
    yield from (f"| {' | '.join(cells)} |" for cells in (map(markdown_text, grid.headings), ruler, *rows))


def markdown_text(text: str) -> str:
    """Escape a text for Markdown, on one line. An underscore within a word needs no escape."""
    return re.sub(r"[\\`*\[\]<>|#&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))
