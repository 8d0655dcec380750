"""Grids and texts as GitHub's Markdown, in which nothing of a text is taken for markup."""

from collections.abc import Iterator

from tbps.study.grids import Grid


def markdown_rows(grid: Grid) -> Iterator[str]:
    """The lines of a table, names to the left, numbers to the right."""
    ruler = ("---", *["---:"] * (len(grid.headings) - 1))
    rows = ([markdown_text(cell) for cell in cells] for cells in grid.rows)
    yield from (f"| {' | '.join(cells)} |" for cells in (map(markdown_text, grid.headings), ruler, *rows))


def markdown_text(text: str) -> str:
    """As it stands: what Markdown or HTML would read as markup is escaped."""
    return "".join(f"\\{character}" if character in "\\`*_[]<>|#&" else character for character in " ".join(text.split()))
