"""Write the report as one self-contained HTML page, with style and plots embedded. The layout is in page.html.jinja."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tbps.study.report.grids import LEGEND, Grid, about, cost_grid, metric_grid, remarks, title
from tbps.study.report.plots import INK, plots
from tbps.study.report.tables import TableReport

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True, slots=True)
class Section:
    """One table on the page. `link`: its text in the navigation; `anchor`: its id."""

    anchor: str
    link: str
    title: str
    about: Sequence[str]
    plots: Sequence[Markup]
    grids: Sequence[Grid]
    remarks: Sequence[str]


def page(reports: Sequence[TableReport]) -> str:
    """Format all tables, with their plots and remarks, as HTML."""
    sections = [_section(f"table-{number}", report) for number, report in enumerate(reports, 1)]
    return _ENVIRONMENT.get_template("page.html.jinja").render(sections=sections, legend=LEGEND) + "\n"


def _section(anchor: str, report: TableReport) -> Section:
    salted = [(f"{anchor}-{number}", plot) for number, plot in enumerate(plots(report))]
    return Section(
        anchor=anchor,
        link=f"{report.name}{report.apart and f' ({report.apart})'}",
        title=title(report),
        about=about(report),
        plots=[_inline(plot.svg(salt), salt, plot.label) for salt, plot in salted],
        grids=[grid for grid in (metric_grid(report), cost_grid(report)) if grid is not None],
        remarks=remarks(report),
    )


def _inline(svg: str, prefix: str, label: str) -> Markup:
    """Prepare an SVG for the page: no prologue and metadata, the page's text colour, and ids that are unique on the page."""
    body = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL).replace(INK, "currentColor")
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", body)
    body = body.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    return Markup(body)  # matplotlib has escaped its texts
