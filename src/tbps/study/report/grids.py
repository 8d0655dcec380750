"""What a report shows of a table, as text in rows and columns, before it is Markdown or a page.

A number never stands without its seeds; data set and start model stand in `facts`, above every grid.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tbps.study.report.paper import PaperRow
from tbps.study.report.spread import ENOUGH, Difference, Spread
from tbps.study.report.tables import MAIN, Line, TableReport

HEADINGS = {"r1": "Rank-1", "r5": "Rank-5", "r10": "Rank-10", "map": "mAP", "minp": "mINP"}


@dataclass(frozen=True, slots=True)
class Column:
    """A number of the cost grid: how its heading reads, the factor to its unit, digits, and the paper's name for it."""

    heading: str
    factor: float
    digits: int
    paper: str = ""


COSTS = {
    "parameters": Column("parameters, M", 1e-6, 1),
    "trained": Column("of which learn, M", 1e-6, 1),
    "encode_flops": Column("GFLOP to embed a pair", 1e-9, 2),
    "train_flops": Column("GFLOP to learn from a pair", 1e-9, 2),
    "train_seconds": Column("updates, s", 1, 1, "train_s"),
    "test_seconds": Column("test, s", 1, 1, "test_s"),
    "encode_seconds": Column("a pair on a CPU, ms", 1e3, 1),
    "peak_bytes": Column("peak memory, GiB", 2**-30, 2),
}
_COST_TABLES: Mapping[str, Mapping[str, Column]] = {
    "cost": COSTS,
    "few-shot": {
        "parameters": COSTS["parameters"],
        "trained": Column("of which learn", 1, 0),
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
    """A table of text; the first column names rows, all others are aligned right."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def title(report: TableReport) -> str:
    """What a table is about, and what sets it apart from others of its name."""
    return f"{report.name}: {report.title}{report.apart and f', {report.apart}'}"


def facts(report: TableReport) -> list[str]:
    """What every number of the table is about: data, model, changes, machine, and where the paper's numbers are from."""
    train = report.counts["train"]
    learned = f"trained on {train[2]:,} captions of {train[1]:,} images ({train[0]:,} identities)"
    scored = "nothing scored yet"
    if report.split is not None:
        scored = f"scored on {report.split[1]:,} queries against {report.split[2]:,} images of {report.split[0]}"
    backbone = f", {report.backbone}" if report.backbone else ""
    lines = [
        f"Data: {report.data} ({report.data_fingerprint}), {learned}, {scored}.",
        f"Start: {report.start} ({report.start_fingerprint}{backbone}).",
    ]
    if report.changes:
        lines.append(f"Changed in every row: {', '.join(f'{key} = {value}' for key, value in report.changes.items())}.")
    if report.devices:
        lines.append(f"Ran on: {', '.join(report.devices)}.")
    sources = {_source(line.paper) for line in report.lines if line.paper is not None}
    if sources:
        lines.append(f"Paper ({report.source}): {', '.join(sorted(sources))}; single runs.")
    return lines


def metric_grid(report: TableReport) -> Grid:
    """Metrics in percent with their spread over seeds, differences with intervals, and the paper's; no empty columns."""
    metrics = report.columns
    ours = ("row", "seeds", *(HEADINGS[metric] for metric in metrics), "Rank-1 to base", "mAP to base")
    theirs = (*(f"paper {HEADINGS[metric]}" for metric in _PAPER_METRICS), "paper Rank-1 to base", "sign")
    rows = [(*_ours(line, metrics), *_theirs(line)) for line in report.lines]
    nothing = [""] * (len(ours) - 1)
    rows += [(_reference_name(row), *nothing, *_paper_cells(row), "", "") for row in report.references if "r1" in row.values]
    kept = [column for column in range(len(ours) + len(theirs)) if column < 2 or any(cells[column] for cells in rows)]
    return Grid(
        tuple((*ours, *theirs)[column] for column in kept), tuple(tuple(cells[column] for column in kept) for cells in rows)
    )


def cost_grid(report: TableReport) -> Grid | None:
    """Counts and measurements, for the tables that are about them."""
    known = _COST_TABLES.get(report.name, {})
    columns = {name: column for name, column in known.items() if any(name in line.spreads for line in report.lines)}
    if not columns:
        return None
    parameters = _PAPER_PARAMETERS.get(report.name)
    papers = [column.paper for column in columns.values() if column.paper and report.name == "cost"]

    def cells(line: Line) -> Iterator[str]:
        yield from (line.name, seeds_of(line))
        for name, column in columns.items():
            yield _amount(line.spreads.get(name), column)
        yield from _paper_amounts(line.paper, parameters, papers)

    headings = [column.heading for column in columns.values()]
    theirs = [*(["paper: learn, M"] if parameters else []), *(f"paper: {COSTS[_ours_of(name)].heading}" for name in papers)]
    rows = [tuple(cells(line)) for line in report.lines]
    if theirs:
        rows += [
            (_reference_name(row), "", *[""] * len(columns), *_paper_amounts(row, parameters, papers)) for row in report.references
        ]
    return Grid(("row", "seeds", *headings, *theirs), tuple(rows))


def remarks(report: TableReport) -> list[str]:
    """What a reader must know beside the numbers: small samples, notes on rows, and what was not run."""
    counts = sorted({d.count for line in report.lines for d in line.differences.values()})
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
    found += [_probes(report.tolerances)] if report.tolerances else []
    found += [f"{line.name}: {line.note}{_chosen(line)}." for line in report.lines if line.note]
    for line in report.lines:
        for reason in dict.fromkeys(line.missing.values()):
            seeds = ", ".join(str(seed) for seed, why in line.missing.items() if why == reason)
            found.append(f"Not run: {line.name}, seeds {seeds}: {reason}.")
    return found + [f"Not run: {line}." for line in report.not_run]


def _probes(tolerances: Sequence[float]) -> str:
    points = " or ".join(f"{tolerance:g}" for tolerance in tolerances)
    return (
        "C1: what Rank-1 loses without a module, its residual path kept, over the largest such loss. C2: how far a module must be "
        "on the line from its weights before training (0) to its trained ones (1) for Rank-1 to lose at most "
        f"{points} {'point' if points == '1' else 'points'}. All on the val split."
    )


def _chosen(line: Line) -> str:
    """The layers that were chosen, by seed."""
    layers = {
        seed: [f"{value:g}" for name, value in sorted(run["values"].items()) if name.startswith("chosen.")]
        for seed, run in line.runs.items()
    }
    return "".join(f"; seed {seed}: {', '.join(numbers)}" for seed, numbers in layers.items() if numbers)


LEGEND = (
    "Metrics in percent: mean ± sample standard deviation over the seeds named. “To base”: mean difference to the table's base row "
    "over the seeds that both have, with the middle 95 % of 10,000 bootstrap means in parentheses. “Sign” compares Rank-1 to base "
    "with the paper's: agrees or disagrees where our interval leaves out 0, else unclear."
)


def _ours(line: Line, metrics: Sequence[str]) -> Iterator[str]:
    yield from (line.name, seeds_of(line))
    yield from (_percent(line.spreads.get(metric)) for metric in metrics)
    yield from ("base" if line.base is None else _signed(line.differences.get(metric)) for metric in (MAIN, "map"))


def _theirs(line: Line) -> tuple[str, ...]:
    difference = line.paper_difference(MAIN)
    return (*_paper_cells(line.paper), "" if difference is None else f"{difference:+.2f}", line.agreement)


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


def seeds_of(line: Line) -> str:
    """The seeds that are done, as text."""
    return ", ".join(map(str, line.seeds)) or "none"


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _percent(found: Spread | None) -> str:
    if found is None:
        return ""
    return f"{found.mean:.2f}" if found.std is None else f"{found.mean:.2f} ± {found.std:.2f}"


def _amount(found: Spread | None, column: Column) -> str:
    return "" if found is None else f"{found.mean * column.factor:,.{column.digits}f}"


def _signed(found: Difference | None) -> str:
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.mean:+.2f}"
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
