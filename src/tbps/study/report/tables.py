"""Read the results of a study by table and row, together with the paper's numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tbps.errors import CheckpointError, DataError, SettingsError
from tbps.study.ablations import TABLES, AblationRow, table
from tbps.study.plan import differences
from tbps.study.plan_record import PlanRecord
from tbps.study.report.paper import METRICS, PaperRow, paper_rows, reported
from tbps.study.report.spread import Difference, SeedSpread, paired_difference, spread
from tbps.study.result import StepResult, read_result
from tbps.study.step import read_error, read_step

Agreement = Literal["agrees", "disagrees", "unclear", ""]
MAIN = "r1"
"""The metric whose sign is compared with the paper's."""


@dataclass(frozen=True, slots=True)
class RowReport:
    """Results of one row of one table.

    `changes`: settings in which the row differs from its base. `runs`: seed -> result of the finished step. `missing`: seed -> why
    there is no result. `paper`: None if the paper has no such row. `paper_base`: None if the paper has no base of the same data set
    and backbone.
    """

    name: str
    base: str | None
    changes: Mapping[str, Any]
    note: str
    runs: Mapping[int, StepResult]
    missing: Mapping[int, str]
    spreads: Mapping[str, SeedSpread]
    differences: Mapping[str, Difference]
    paper: PaperRow | None
    paper_base: PaperRow | None

    @property
    def seeds(self) -> list[int]:
        """Seeds with a result."""
        return sorted(self.runs)

    def paper_difference(self, metric: str) -> float | None:
        """The paper's difference between the row and its base; both are single runs."""
        if self.paper is None or self.paper_base is None or self.base is None:
            return None
        ours, base = self.paper.values.get(metric), self.paper_base.values.get(metric)
        return None if ours is None or base is None else ours - base

    @property
    def agreement(self) -> Agreement:
        """Whether Rank-1 changed in the paper's direction.

        "unclear" if the confidence interval contains 0; empty without a difference to compare.
        """
        ours, theirs = self.differences.get(MAIN), self.paper_difference(MAIN)
        if ours is None or not theirs:
            return ""
        if ours.sign == 0:
            return "unclear"
        return "agrees" if ours.sign * theirs > 0 else "disagrees"


@dataclass(frozen=True, slots=True)
class TableReport:
    """Results of one table on one data set, from one start model, with one set of changes (`record`).

    `references`: rows of other methods, as the paper reports them. `not_run`: reasons why rows of the table have no results.
    `legends`: explanations of the values (`Work.legend`). `split`: name, queries and images of the split that was scored, None
    before the first result. `devices`: machines that ran the steps. `apart`: data, start model or changes in which this record
    differs from others of the same table in the study; empty if there is only one.
    """

    name: str
    title: str
    source: str
    record: PlanRecord
    rows: tuple[RowReport, ...]
    references: tuple[PaperRow, ...]
    not_run: tuple[str, ...]
    legends: tuple[str, ...]
    split: tuple[str, int, int] | None
    devices: tuple[str, ...]
    apart: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Metrics to show: mINP only if the paper reports it."""
        minp = any(row.paper is not None and "minp" in row.paper.values for row in self.rows)
        return METRICS if minp else METRICS[:-1]


def read_study(study: Path, names: Sequence[str] = ()) -> list[TableReport]:
    """Read the tables that were started in a study's folder, in the order of `ablations`; `names`: only those tables.

    Raises DataError if none was started, CheckpointError for a damaged record or result.
    """
    wanted = [table(name).name for name in names] or list(TABLES)
    files = [file for name in wanted for file in sorted((study / "plans").glob(f"{name}-????????.json"))]
    if not files:
        raise DataError(f"{study} holds no study of {', '.join(names) or 'any table'}; begin with `tbps study run`")
    reports = [_read_table(study, file) for file in files]
    return [replace(report, apart=_apart(report, [r for r in reports if r.name == report.name])) for report in reports]


def _apart(report: TableReport, alike: Sequence[TableReport]) -> str:
    """Describe the data, start model and changes of a report that not all of these reports share."""
    ours, *_ = compared = [
        {"data": f"{r.data} {r.data_fingerprint}", "start": f"{r.start} {r.start_fingerprint}"} | dict(r.changes)
        for r in (report.record, *(other.record for other in alike))
    ]
    return ", ".join(f"{key} = {value}" for key, value in ours.items() if any(other.get(key) != value for other in compared))


def _read_table(study: Path, file: Path) -> TableReport:
    record = PlanRecord.load(file)
    try:
        ours = table(record.table)
    except SettingsError as error:
        raise CheckpointError(f"{file} is damaged ({error}); delete it and run the study's command again") from error
    done = {row: _runs(study, seeds) for row, seeds in record.rows.items()}
    rows = tuple(_row_report(row, done, record) for row in ours.rows if row.name in done)
    results = [run for row in rows for run in row.runs.values()]
    split = (results[0].split, results[0].queries, results[0].gallery) if results else None
    literature = {row.row for row in paper_rows() if row.table == ours.name} - {row.name for row in ours.rows}
    references = [reported(ours.name, row, record.data, record.backbone) for row in sorted(literature)]
    legends = {read_step(study / "steps" / run.step).work.legend for run in results}
    return TableReport(
        name=ours.name,
        title=ours.title,
        source=ours.source,
        record=record,
        rows=rows,
        references=tuple(row for row in references if row is not None),
        not_run=tuple(_not_run([row.name for row in ours.rows if row.name not in done], record.refused)),
        legends=tuple(sorted(legends - {""})),
        split=split,
        devices=tuple(sorted({run.device for run in results})),
    )


def _runs(study: Path, seeds: Mapping[int, str]) -> tuple[dict[int, StepResult], dict[int, str]]:
    """Read results, and reasons for missing ones, by seed."""
    runs: dict[int, StepResult] = {}
    missing: dict[int, str] = {}
    for seed, step in sorted(seeds.items()):
        folder = study / "steps" / step
        result = read_result(folder)
        if result is not None:
            runs[seed] = result
        else:
            error = read_error(folder)
            missing[seed] = f"failed: {error}" if error else "not finished" if folder.exists() else "not begun"
    return runs, missing


def _row_report(
    row: AblationRow, done: Mapping[str, tuple[Mapping[int, StepResult], Mapping[int, str]]], record: PlanRecord
) -> RowReport:
    runs, missing = done[row.name]
    metrics = sorted({metric for run in runs.values() for metric in (*run.values, *run.measured)})
    values = {metric: _values(runs, metric) for metric in metrics}
    base: Mapping[int, StepResult] = done[row.base][0] if row.base is not None and row.base in done else {}
    found = {metric: paired_difference(ours, _values(base, metric)) for metric, ours in values.items() if metric in METRICS}
    paper = reported(record.table, row.name, record.data, record.backbone)
    paper_base = None if paper is None or row.base is None else reported(record.table, row.base, paper.dataset, paper.backbone)
    same = paper is not None and paper_base is not None and paper_base.backbone == paper.backbone
    return RowReport(
        name=row.name,
        base=row.base,
        changes={} if row.base is None else differences(row.work, table(record.table).row(row.base).work),
        note=row.note,
        runs=runs,
        missing=missing,
        spreads={metric: spread(list(ours.values())) for metric, ours in values.items() if ours},
        differences={metric: difference for metric, difference in found.items() if difference is not None},
        paper=paper,
        paper_base=paper_base if same else None,
    )


def _values(runs: Mapping[int, StepResult], metric: str) -> dict[int, float]:
    """Seed -> value of a metric, for the seeds that have one."""
    found = {seed: run.number(metric) for seed, run in runs.items()}
    return {seed: float(value) for seed, value in found.items() if value is not None}


def _not_run(rows: Sequence[str], refused: Mapping[str, str]) -> list[str]:
    """List each reason why rows have no results, with the names of those rows."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(refused.get(row, "not asked for"), []).append(row)
    return [f"{reason}: {', '.join(names)}" for reason, names in found.items()]
