"""Reports of a study: Markdown and CSV here, the page in `tbps.study.report.html`, its pictures in `tbps.study.report.plots`.

report.md, report.html   table by table, ours beside the paper's
plots/                   the pictures of report.md; those of the page are in it
summary.csv              a line a row and metric
runs.csv                 a line a row and seed, with every value
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from tbps.storage import write_bytes, write_text
from tbps.study.report.grids import LEGEND, cost_grid, facts, metric_grid, remarks, seeds_of, title
from tbps.study.report.html import page
from tbps.study.report.markdown import markdown_rows, markdown_text
from tbps.study.report.plots import Plot, plots
from tbps.study.report.tables import MAIN, Line, TableReport

_KEYS = ("table", "data", "data_fingerprint", "start", "start_fingerprint", "changes", "row")
_SUMMARY = ("base", "seeds", "metric", "mean", "std", "n", "difference", "low", "high", "difference_n")
_PAPER = ("paper", "paper_difference", "paper_dataset", "paper_backbone", "sign")


def write_reports(reports: Sequence[TableReport], folder: Path) -> list[Path]:
    """Writes the four files and the pictures, and returns them all."""
    texts = {
        "report.md": markdown(reports),
        "report.html": page(reports),
        "summary.csv": summary_csv(reports),
        "runs.csv": runs_csv(reports),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    pictures = {name: plot for number, report in enumerate(reports) for name, plot in _pictures(number, report)}
    for name, plot in pictures.items():
        write_bytes(folder / name, plot.png())
    return [folder / name for name in (*texts, *pictures)]


def markdown(reports: Sequence[TableReport]) -> str:
    """All tables as GitHub's Markdown."""
    parts = ["# Study", "", LEGEND]
    for number, report in enumerate(reports):
        parts += ["", f"## {markdown_text(title(report))}", "", *(f"- {markdown_text(fact)}" for fact in facts(report))]
        for name, plot in _pictures(number, report):
            parts += ["", f"![{markdown_text(plot.label)}]({name})"]
        for grid in (metric_grid(report), cost_grid(report)):
            if grid is not None:
                parts += ["", *markdown_rows(grid)]
        parts += ["", *(f"- {markdown_text(remark)}" for remark in remarks(report))]
    return "\n".join(parts).rstrip() + "\n"


def _pictures(number: int, report: TableReport) -> Iterator[tuple[str, Plot]]:
    """Every plot with its file's name."""
    yield from ((f"plots/{number + 1}-{report.name}-{plot.name}.png", plot) for plot in plots(report))


def summary_csv(reports: Sequence[TableReport]) -> str:
    """A line a table, row and metric."""

    def lines() -> Iterator[list[object]]:
        for report, line in _lines(reports):
            for metric, found in line.spreads.items():
                difference, paper = line.differences.get(metric), line.paper
                yield [
                    *_about(report),
                    line.name,
                    line.base or "",
                    seeds_of(line),
                    metric,
                    *(found.mean, found.std, found.count),
                    *((difference.mean, difference.low, difference.high, difference.count) if difference else [None] * 4),
                    paper.values.get(metric) if paper else None,
                    line.paper_difference(metric),
                    *((paper.dataset, paper.backbone) if paper else ("", "")),
                    line.agreement if metric == MAIN else "",
                ]

    return _csv((*_KEYS, *_SUMMARY, *_PAPER), lines())


def runs_csv(reports: Sequence[TableReport]) -> str:
    """A line a table, row and seed, with every value and measurement."""
    names = sorted({name for _, line in _lines(reports) for run in line.runs.values() for name in run["values"]})
    measured = sorted({name for _, line in _lines(reports) for run in line.runs.values() for name in run["measured"]})

    def lines() -> Iterator[list[object]]:
        for report, line in _lines(reports):
            for seed, run in line.runs.items():
                numbers = [*(run["values"].get(name) for name in names), *(run["measured"].get(name) for name in measured)]
                yield [*_about(report), line.name, seed, run["step"], *numbers]

    return _csv((*_KEYS, "seed", "step", *names, *measured), lines())


def _lines(reports: Sequence[TableReport]) -> Iterator[tuple[TableReport, Line]]:
    return ((report, line) for report in reports for line in report.lines)


def _about(report: TableReport) -> list[object]:
    changes = " ".join(f"{key}={value}" for key, value in report.changes.items())
    return [report.name, report.data, report.data_fingerprint, report.start, report.start_fingerprint, changes]


def _csv(heading: Sequence[str], rows: Iterator[list[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return out.getvalue()
