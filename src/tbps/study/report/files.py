"""Write the report of a study.

report.md, report.html   all tables, with the paper's numbers beside ours
plots/                   plots of report.md; those of report.html are embedded
summary.csv              one line per row and metric
runs.csv                 one line per row and seed, with every value
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from tbps.storage import write_bytes, write_text
from tbps.study.report.grids import LEGEND, about, cost_grid, metric_grid, remarks, seeds_of, title
from tbps.study.report.html import page
from tbps.study.report.markdown import markdown_rows, markdown_text
from tbps.study.report.plots import Plot, plots
from tbps.study.report.tables import MAIN, RowReport, TableReport

_KEYS = ("table", "data", "data_fingerprint", "start", "start_fingerprint", "changes", "row")
_SUMMARY = ("base", "seeds", "metric", "mean", "std", "n", "difference", "low", "high", "difference_n")
_PAPER = ("paper", "paper_difference", "paper_dataset", "paper_backbone", "sign")


def write_reports(reports: Sequence[TableReport], folder: Path) -> list[Path]:
    """Write the four files and the plots, and return their paths."""
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
    """Format all tables as GitHub Markdown."""
    parts = ["# Study", "", LEGEND]
    for number, report in enumerate(reports):
        parts += ["", f"## {markdown_text(title(report))}", "", *(f"- {markdown_text(sentence)}" for sentence in about(report))]
        for name, plot in _pictures(number, report):
            parts += ["", f"![{markdown_text(plot.label)}]({name})"]
        for grid in (metric_grid(report), cost_grid(report)):
            if grid is not None:
                parts += ["", *markdown_rows(grid)]
        parts += ["", *(f"- {markdown_text(remark)}" for remark in remarks(report))]
    return "\n".join(parts).rstrip() + "\n"


def _pictures(number: int, report: TableReport) -> Iterator[tuple[str, Plot]]:
    """Pairs of (file name, plot) for every plot of a table."""
    yield from ((f"plots/{number + 1}-{report.name}-{plot.name}.png", plot) for plot in plots(report))


def summary_csv(reports: Sequence[TableReport]) -> str:
    """One line per table, row and metric."""

    def lines() -> Iterator[list[object]]:
        for report, row in _rows(reports):
            for metric, found in row.spreads.items():
                difference, paper = row.differences.get(metric), row.paper
                yield [
                    *_key(report),
                    row.name,
                    row.base or "",
                    seeds_of(row),
                    metric,
                    *(found.mean, found.std, found.count),
                    *((difference.mean, difference.low, difference.high, difference.count) if difference else [None] * 4),
                    paper.values.get(metric) if paper else None,
                    row.paper_difference(metric),
                    *((paper.dataset, paper.backbone) if paper else ("", "")),
                    row.agreement if metric == MAIN else "",
                ]

    return _csv((*_KEYS, *_SUMMARY, *_PAPER), lines())


def runs_csv(reports: Sequence[TableReport]) -> str:
    """One line per table, row and seed, with every value and measurement."""
    results = [run for _, row in _rows(reports) for run in row.runs.values()]
    names = sorted({name for run in results for name in run.values})
    measured = sorted({name for run in results for name in run.circumstances})

    def lines() -> Iterator[list[object]]:
        for report, row in _rows(reports):
            for seed, run in row.runs.items():
                numbers = [*(run.values.get(name) for name in names), *(run.circumstances.get(name) for name in measured)]
                yield [*_key(report), row.name, seed, run.step, *numbers]

    return _csv((*_KEYS, "seed", "step", *names, *measured), lines())


def _rows(reports: Sequence[TableReport]) -> Iterator[tuple[TableReport, RowReport]]:
    return ((report, row) for report in reports for row in report.rows)


def _key(report: TableReport) -> list[object]:
    record = report.record
    changes = " ".join(f"{key}={value}" for key, value in record.changes.items())
    return [report.name, record.data, record.data_fingerprint, record.start, record.start_fingerprint, changes]


def _csv(heading: Sequence[str], rows: Iterator[list[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return out.getvalue()
