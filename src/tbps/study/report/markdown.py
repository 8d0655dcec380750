"""Grids and texts as GitHub's Markdown, in which nothing of a text is taken for markup."""

import re
from collections.abc import Iterator

from tbps.study.report.grids import Grid


def markdown_rows(grid: Grid) -> Iterator[str]:
    """The lines of a table, names to the left, numbers to the right."""
    ruler = ("---", *["---:"] * (len(grid.headings) - 1))
    rows = ([markdown_text(cell) for cell in cells] for cells in grid.rows)
    yield from (f"| {' | '.join(cells)} |" for cells in (map(markdown_text, grid.headings), ruler, *rows))


def markdown_text(text: str) -> str:
    """As it stands, on one line: what Markdown or HTML would read as markup is escaped (an underscore within a word is none)."""
    return re.sub(r"[\\`*\[\]<>|#&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))
