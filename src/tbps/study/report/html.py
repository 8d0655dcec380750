"""The report as one HTML page that asks nobody for anything: style and plots are in it. For narrow screens and dark ones too."""

import re
from collections.abc import Sequence
from html import escape

from tbps.study.report.grids import LEGEND, Grid, cost_grid, facts, metric_grid, remarks, title
from tbps.study.report.plots import INK, plots
from tbps.study.report.tables import TableReport

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
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); min-width: 12rem; max-width: 16rem;
  white-space: normal; overflow-wrap: break-word; }
tbody tr:nth-child(even) > * { background: var(--tint); }
td.agrees { color: #2e9e5b; } td.disagrees { color: #d64545; }
svg { max-width: 100%; height: auto; color: var(--ink); }
nav a { margin-right: 1rem; white-space: nowrap; color: inherit; }
"""


def page(reports: Sequence[TableReport]) -> str:
    """All tables, their plots and remarks."""
    names = [f"{report.name}{report.apart and f' ({report.apart})'}" for report in reports]
    links = "".join(f'<a href="#{_anchor(number)}">{escape(name)}</a> ' for number, name in enumerate(names))
    sections = "".join(_section(_anchor(number), report) for number, report in enumerate(reports))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Study</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f'<h1>Study</h1>\n<nav>{links}</nav>\n<p class="legend">{escape(LEGEND)}</p>\n{sections}</body>\n</html>\n'
    )


def _inline(svg: str, prefix: str, label: str) -> str:
    """The drawing alone, without prologue and metadata, in the page's colour of text and with ids of its own."""
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL).replace(INK, "currentColor")
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", body)
    return body.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def _section(anchor: str, report: TableReport) -> str:
    grids = [grid for grid in (metric_grid(report), cost_grid(report)) if grid is not None]
    salted = [(f"{anchor}-{number}", plot) for number, plot in enumerate(plots(report))]
    drawings = "\n".join(_inline(plot.svg(salt), salt, plot.label) for salt, plot in salted)
    return (
        f'<section id="{anchor}">\n<h2>{escape(title(report))}</h2>\n{_list(facts(report))}'
        f"{drawings}\n"
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
