"""Grids and remarks of a report as text, to be formatted as Markdown or HTML.

Every number is shown with its seeds. `about` names the data set and the start model of all numbers in a table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tbps.study.report.paper import PaperRow
from tbps.study.report.spread import ENOUGH, Difference, SeedSpread
from tbps.study.report.tables import MAIN, RowReport, TableReport

HEADINGS = {"r1": "Rank-1", "r5": "Rank-5", "r10": "Rank-10", "map": "mAP", "minp": "mINP"}


@dataclass(frozen=True, slots=True)
class CostColumn:
    """A column of the cost grid: heading, factor to the shown unit, digits after the point, and the paper's name of the number."""

    heading: str
    factor: float
    digits: int
    paper: str = ""


COSTS = {
    "parameters": CostColumn("parameters, M", 1e-6, 1),
    "trained": CostColumn("of which learn, M", 1e-6, 1),
    "encode_flops": CostColumn("GFLOP to embed a pair", 1e-9, 2),
    "train_flops": CostColumn("GFLOP to learn from a pair", 1e-9, 2),
    "train_seconds": CostColumn("updates, s", 1, 1, "train_s"),
    "test_seconds": CostColumn("test, s", 1, 1, "test_s"),
    "encode_seconds": CostColumn("a pair on a CPU, ms", 1e3, 1),
    "peak_bytes": CostColumn("peak memory, GiB", 2**-30, 2),
}
_COST_TABLES: Mapping[str, Mapping[str, CostColumn]] = {
    "cost": COSTS,
    "few-shot": {
        "parameters": COSTS["parameters"],
        "trained": CostColumn("of which learn", 1, 0),
        "train_seconds": COSTS["train_seconds"],
    },
    "compression": {name: COSTS[name] for name in ("parameters", "trained", "train_seconds")},
    "distillation": {
        name: COSTS[name] for name in ("parameters", "encode_flops", "encode_seconds", "train_flops", "train_seconds")
    },
}
_PAPER_METRICS = ("r1", "map", "minp")
_PAPER_PARAMETERS = {"cost": "params_m", "compression": "trained_m"}


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text. The first column names the rows; all others are aligned right."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def title(report: TableReport) -> str:
    """Title of a table, with what distinguishes it from others of the same name."""
    return f"{report.name}: {report.title}{report.apart and f', {report.apart}'}"


def about(report: TableReport) -> list[str]:
    """Data, start model, changes and machine of all numbers in a table, and the source of the paper's numbers."""
    record = report.record
    train = record.counts["train"]
    learned = f"trained on {train.captions:,} captions of {train.images:,} images ({train.identities:,} identities)"
    scored = "nothing scored yet"
    if report.split is not None:
        scored = f"scored on {report.split[1]:,} queries against {report.split[2]:,} images of {report.split[0]}"
    backbone = f", {record.backbone}" if record.backbone else ""
    sentences = [
        f"Data: {record.data} ({record.data_fingerprint}), {learned}, {scored}.",
        f"Start: {record.start} ({record.start_fingerprint}{backbone}).",
    ]
    if record.changes:
        sentences.append(f"Changed in every row: {', '.join(f'{key} = {value}' for key, value in record.changes.items())}.")
    if report.devices:
        sentences.append(f"Ran on: {', '.join(report.devices)}.")
    sources = {_source(row.paper) for row in report.rows if row.paper is not None}
    if sources:
        sentences.append(f"Paper ({report.source}): {', '.join(sorted(sources))}; single runs.")
    return sentences


def metric_grid(report: TableReport) -> Grid:
    """Metrics in percent with their spread over seeds, differences with intervals, and the paper's values; no empty columns."""
    metrics = report.columns
    ours = ("row", "seeds", *(HEADINGS[metric] for metric in metrics), "Rank-1 to base", "mAP to base")
    theirs = (*(f"paper {HEADINGS[metric]}" for metric in _PAPER_METRICS), "paper Rank-1 to base", "sign")
    rows = [(*_ours(row, metrics), *_theirs(row)) for row in report.rows]
    nothing = [""] * (len(ours) - 1)
    others = [other for other in report.references if "r1" in other.values]
    rows += [(_reference_name(other), *nothing, *_paper_cells(other), "", "") for other in others]
    kept = [column for column in range(len(ours) + len(theirs)) if column < 2 or any(cells[column] for cells in rows)]
    return Grid(
        tuple((*ours, *theirs)[column] for column in kept), tuple(tuple(cells[column] for column in kept) for cells in rows)
    )


def cost_grid(report: TableReport) -> Grid | None:
    """Counts and measurements of the tables that compare costs; None for other tables."""
    known = _COST_TABLES.get(report.name, {})
    columns = {name: column for name, column in known.items() if any(name in row.spreads for row in report.rows)}
    if not columns:
        return None
    parameters = _PAPER_PARAMETERS.get(report.name)
    papers = [column.paper for column in columns.values() if column.paper and report.name == "cost"]

    def cells(row: RowReport) -> Iterator[str]:
        yield from (row.name, seeds_of(row))
        for name, column in columns.items():
            yield _amount(row.spreads.get(name), column)
        yield from _paper_amounts(row.paper, parameters, papers)

    headings = [column.heading for column in columns.values()]
    theirs = [*(["paper: learn, M"] if parameters else []), *(f"paper: {COSTS[_ours_of(name)].heading}" for name in papers)]
    rows = [tuple(cells(row)) for row in report.rows]
    if theirs:
        rows += [
            (_reference_name(other), "", *[""] * len(columns), *_paper_amounts(other, parameters, papers))
            for other in report.references
        ]
    return Grid(("row", "seeds", *headings, *theirs), tuple(rows))


def remarks(report: TableReport) -> list[str]:
    """Remarks for the reader of a table: few seeds, legends, notes on rows, and rows that were not run."""
    counts = sorted({d.count for row in report.rows for d in row.differences.values()})
    found = []
    few = [count for count in counts if 1 < count < ENOUGH]
    if few:
        lucks = ", ".join(f"{Difference(0, 0, 0, count).by_luck:.0%} with {count}" for count in few)
        found.append(
            f"Few seeds: where two rows do not differ, all differences have one sign by luck in {lucks}; an interval that leaves "
            f"out 0 says little below {ENOUGH} seeds."
        )
    if counts and counts[0] == 1:
        found.append("A single seed gives no spread and no interval: such differences say nothing about the sign.")
    found += report.legends
    found += [f"{row.name}: {row.note}{_chosen(row)}." for row in report.rows if row.note]
    for row in report.rows:
        for reason in dict.fromkeys(row.missing.values()):
            seeds = ", ".join(str(seed) for seed, why in row.missing.items() if why == reason)
            found.append(f"Not run: {row.name}, seeds {seeds}: {reason}.")
    return found + [f"Not run: {reason}." for reason in report.not_run]


def _chosen(row: RowReport) -> str:
    """Layers chosen with each seed, for rows that choose layers; otherwise empty."""
    layers = {
        seed: [f"{value:g}" for name, value in sorted(run.values.items()) if name.startswith("chosen.")]
        for seed, run in row.runs.items()
    }
    return "".join(f"; seed {seed}: {', '.join(numbers)}" for seed, numbers in layers.items() if numbers)


LEGEND = (
    "Metrics in percent: mean ± sample standard deviation over the seeds named. “To base”: mean difference to the table's base row "
    "over the seeds that both have, with the middle 95 % of 10,000 bootstrap means in parentheses. “Sign” compares Rank-1 to base "
    "with the paper's: agrees or disagrees where our interval leaves out 0, else unclear."
)


def _ours(row: RowReport, metrics: Sequence[str]) -> Iterator[str]:
    yield from (row.name, seeds_of(row))
    yield from (_percent(row.spreads.get(metric)) for metric in metrics)
    yield from ("base" if row.base is None else _signed(row.differences.get(metric)) for metric in (MAIN, "map"))


def _theirs(row: RowReport) -> tuple[str, ...]:
    difference = row.paper_difference(MAIN)
    return (*_paper_cells(row.paper), "" if difference is None else f"{difference:+.2f}", row.agreement)


def _paper_cells(row: PaperRow | None) -> tuple[str, ...]:
    values: Mapping[str, float] = row.values if row is not None else {}
    return tuple(_two(values.get(metric)) for metric in _PAPER_METRICS)


def _paper_amounts(row: PaperRow | None, parameters: str | None, names: Sequence[str]) -> Iterator[str]:
    values: Mapping[str, float] = row.values if row is not None else {}
    for name in [*([parameters] if parameters else []), *names]:
        yield f"{values[name]:,.1f}" if name in values else ""


def _ours_of(paper: str) -> str:
    return next(name for name, column in COSTS.items() if column.paper == paper)


def _reference_name(row: PaperRow) -> str:
    return f"{row.row} (paper only)"


def _source(row: PaperRow) -> str:
    return f"{row.dataset} {row.backbone}".strip()


def seeds_of(row: RowReport) -> str:
    """Seeds with a result, as text."""
    return ", ".join(map(str, row.seeds)) or "none"


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percent(found: SeedSpread | None) -> str:
    if found is None:
        return ""
    return f"{found.mean:.2f}" if found.std is None else f"{found.mean:.2f} ± {found.std:.2f}"


def _amount(found: SeedSpread | None, column: CostColumn) -> str:
    return "" if found is None else f"{found.mean * column.factor:,.{column.digits}f}"


def _signed(found: Difference | None) -> str:
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.mean:+.2f}"
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
