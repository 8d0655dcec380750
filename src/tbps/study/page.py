"""The report as one HTML page that asks nobody for anything: style and plots are in it. For narrow screens and dark ones too."""

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from tbps.study.grids import LEGEND, Grid, cost_grid, facts, metric_grid, remarks, title
from tbps.study.tables import MAIN, Line, TableReport

_INK = "#123456"  # stands for the page's own colour of text while matplotlib draws
_OURS, _PAPER = "#2f7ed8", "#d9822b"  # both readable on white and on black
_COLOURED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
_DRAWING: dict[Any, Any] = {"svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif", "text.parse_math": False}

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #ffffff; --faint: #666; --rule: #ddd; --tint: #f6f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #15171a; --faint: #a0a4aa; --rule: #363a40; --tint: #1d2024; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .5rem; border-top: 1px solid var(--rule); padding-top: 1.5rem; }
p, ul { max-width: 60rem; }
ul { padding-left: 1.2rem; } li, .legend { color: var(--faint); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
thead th { vertical-align: bottom; white-space: normal; min-width: 4.5rem; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); max-width: 14rem; white-space: normal; }
tbody tr:nth-child(even) > * { background: var(--tint); }
td.agrees { color: #2e9e5b; } td.disagrees { color: #d64545; }
svg { max-width: 100%; height: auto; color: var(--ink); }
nav a { margin-right: 1rem; white-space: nowrap; color: inherit; }
"""


def page(reports: Sequence[TableReport]) -> str:
    """All tables, their plots and remarks."""
    links = "".join(f'<a href="#{_anchor(number)}">{escape(report.name)}</a> ' for number, report in enumerate(reports))
    sections = "".join(_section(_anchor(number), report) for number, report in enumerate(reports))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Study</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>Study</h1>\n<nav>{links}</nav>\n<p class="legend">{escape(LEGEND)}</p>\n{sections}</body>\n</html>\n'
    )


def plot(report: TableReport, salt: str) -> str | None:
    """SVG: of every row Rank-1 to base, ours by seed with mean and interval beside the paper's; None where nothing is compared."""
    lines = [line for line in report.lines if MAIN in line.differences or line.paper_difference(MAIN) is not None]
    if not any(MAIN in line.differences for line in lines):
        return None
    style: dict[Any, Any] = dict.fromkeys(_COLOURED, _INK)
    with rc_context(style | _DRAWING | {"svg.hashsalt": salt}):
        figure = Figure(figsize=(8, 1.1 + 0.32 * len(lines)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=_INK, linewidth=0.8)
        for height, line in enumerate(lines):
            _draw(axes, line, height, report)
        axes.plot([], [], "o", color=_OURS, label="ours: mean, 95 % interval, seeds")
        axes.plot([], [], "D", color=_PAPER, markerfacecolor="none", label="paper")
        axes.set_yticks(range(len(lines)), [line.name for line in lines])
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_xlabel("difference to base in Rank-1, points")
        axes.grid(axis="x", color=_INK, alpha=0.15, linewidth=0.6)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(out.getvalue(), f"{title(report)}: difference to base in Rank-1")


def _draw(axes, line: Line, height: int, report: TableReport) -> None:  # type: ignore[no-untyped-def]  # matplotlib's Axes
    theirs, found = line.paper_difference(MAIN), line.differences.get(MAIN)
    if theirs is not None:
        axes.plot([theirs], [height], "D", color=_PAPER, markerfacecolor="none")
    if found is None:
        return
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [height, height], color=_OURS, linewidth=3, alpha=0.45, solid_capstyle="round")
    base = next(other for other in report.lines if other.name == line.base)
    for seed in sorted(line.runs.keys() & base.runs.keys()):
        difference = line.runs[seed]["values"][MAIN] - base.runs[seed]["values"][MAIN]
        axes.plot([difference], [height], "|", color=_OURS, markersize=9)
    axes.plot([found.mean], [height], "o", color=_OURS)


def _inline(svg: str, label: str) -> str:
    """The drawing alone: no prologue that names a document elsewhere, no metadata, the page's colour of text, and its own width."""
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL).replace(_INK, "currentColor")
    return body.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def _section(anchor: str, report: TableReport) -> str:
    grids = [grid for grid in (metric_grid(report), cost_grid(report)) if grid is not None]
    drawing = plot(report, anchor)
    return (
        f'<section id="{anchor}">\n<h2>{escape(title(report))}</h2>\n{_list(facts(report))}'
        f"{'' if drawing is None else drawing}\n"
        f"{''.join(_grid(grid) for grid in grids)}{_list(remarks(report))}</section>\n"
    )


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>\n" if items else ""


def _grid(grid: Grid) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in grid.headings)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(_cell(cell) for cell in cells)}</tr>\n' for name, *cells in grid.rows
    )
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n'


def _cell(text: str) -> str:
    return f'<td class="{text}">{text}</td>' if text in ("agrees", "disagrees") else f"<td>{escape(text)}</td>"


def _anchor(number: int) -> str:
    return f"table-{number + 1}"
