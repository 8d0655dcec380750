"""Ours beside the paper's: what a study has found so far, table by table and row by row, read from its folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tbps.errors import CheckpointError, DataError
from tbps.study.ablations import TABLES, Row, table
from tbps.study.plan import differences
from tbps.study.report.paper import METRICS, PaperRow, paper_rows, reported
from tbps.study.report.spread import Difference, Spread, paired_difference, spread
from tbps.study.step import read_error, read_result, read_step
from tbps.study.work.probing import Probing

Agreement = Literal["agrees", "disagrees", "unclear", ""]
MAIN = "r1"
"""The metric whose sign is compared with the paper's."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of one table.

    `runs`: seed -> values and measurements of the step that is done; `missing`: seed -> why there is none. `changes`: settings in
    which the row differs from its base. `paper` is None where the paper has no such row, `paper_base` where it has no base of the
    same data set and backbone.
    """

    name: str
    base: str | None
    changes: Mapping[str, Any]
    note: str
    runs: Mapping[int, Mapping[str, Any]]
    missing: Mapping[int, str]
    spreads: Mapping[str, Spread]
    differences: Mapping[str, Difference]
    paper: PaperRow | None
    paper_base: PaperRow | None

    @property
    def seeds(self) -> list[int]:
        """Those that are done."""
        return sorted(self.runs)

    def paper_difference(self, metric: str) -> float | None:
        """The paper's own difference to its base, of a single run each."""
        if self.paper is None or self.paper_base is None or self.base is None:
            return None
        ours, base = self.paper.values.get(metric), self.paper_base.values.get(metric)
        return None if ours is None or base is None else ours - base

    @property
    def agreement(self) -> Agreement:
        """Whether Rank-1 moved the way the paper's did; unclear while our interval holds 0; empty where there is nothing to say."""
        ours, theirs = self.differences.get(MAIN), self.paper_difference(MAIN)
        if ours is None or not theirs:
            return ""
        if ours.sign == 0:
            return "unclear"
        return "agrees" if ours.sign * theirs > 0 else "disagrees"


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table on one data set, from one start model, with one set of changes. `counts`: split -> identities, images, captions.

    `split`: name, queries and images of what was scored, None before the first result. `not_run`: rows of the paper that were not
    asked for, or cannot be run. `tolerances`: points of Rank-1 that C2 was allowed to lose. `devices`: where it ran. `apart`: what
    sets it apart from others of its name in the study, empty without others.
    """

    name: str
    title: str
    source: str
    data: str
    data_fingerprint: str
    counts: Mapping[str, Sequence[int]]
    start: str
    start_fingerprint: str
    backbone: str | None
    changes: Mapping[str, str]
    lines: tuple[Line, ...]
    references: tuple[PaperRow, ...]
    not_run: tuple[str, ...]
    tolerances: tuple[float, ...]
    split: tuple[str, int, int] | None
    devices: tuple[str, ...]
    apart: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """The metrics to show: mINP only where the paper gives it."""
        minp = any(line.paper is not None and "minp" in line.paper.values for line in self.lines)
        return METRICS if minp else METRICS[:-1]


def read_study(study: Path, names: Sequence[str] = ()) -> list[TableReport]:
    """Every table that was begun in the study's folder, in the order of `ablations`; `names`: only those.

    Raises DataError where nothing was begun, CheckpointError where a record is damaged.
    """
    wanted = [table(name).name for name in names] or list(TABLES)
    files = [file for name in wanted for file in sorted((study / "plans").glob(f"{name}-????????.json"))]
    if not files:
        raise DataError(f"{study} holds no study of {', '.join(names) or 'any table'}; begin with `tbps study run`")
    reports = [_read_table(study, file) for file in files]
    return [replace(report, apart=_apart(report, [r for r in reports if r.name == report.name])) for report in reports]


def _apart(report: TableReport, alike: Sequence[TableReport]) -> str:
    """Data, start and changes that not all of these tables have."""
    ours, *_ = said = [
        {"data": f"{r.data} {r.data_fingerprint}", "start": f"{r.start} {r.start_fingerprint}"} | dict(r.changes)
        for r in (report, *alike)
    ]
    return ", ".join(f"{key} = {value}" for key, value in ours.items() if any(other.get(key) != value for other in said))


def _read_table(study: Path, file: Path) -> TableReport:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        ours = table(record["table"])
        data, start = record["data"], record["start"]
        done = {row: _runs(study, seeds) for row, seeds in record["rows"].items()}
        backbone = start["backbone"]
        lines = tuple(_line(ours.name, row, done, data["name"], backbone) for row in ours.rows if row.name in done)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); run the study's command again to write it anew") from error
    results = [run for line in lines for run in line.runs.values()]
    split = results[0]["split"] if results else None
    named = {row.name for row in ours.rows}
    literature = {row.row for row in paper_rows() if row.table == ours.name} - named
    references = [reported(ours.name, row, data["name"], backbone) for row in sorted(literature)]
    return TableReport(
        name=ours.name,
        title=ours.title,
        source=ours.source,
        data=data["name"],
        data_fingerprint=data["fingerprint"],
        counts=data["counts"],
        start=start["name"],
        start_fingerprint=start["fingerprint"],
        backbone=backbone,
        changes=record["changes"],
        lines=lines,
        references=tuple(row for row in references if row is not None),
        not_run=tuple(_not_run([row.name for row in ours.rows if row.name not in done], record.get("refused", {}))),
        tolerances=tuple(sorted(_tolerances(study, results))),
        split=None if split is None else (split["name"], split["queries"], split["gallery"]),
        devices=tuple(sorted({run["measured"]["device"] for run in results})),
    )


def _runs(study: Path, seeds: Mapping[str, str]) -> tuple[dict[int, Mapping[str, Any]], dict[int, str]]:
    """(results, reasons for their absence) by seed."""
    runs: dict[int, Mapping[str, Any]] = {}
    missing: dict[int, str] = {}
    for seed, step in sorted(seeds.items(), key=lambda item: int(item[0])):
        folder = study / "steps" / step
        result = read_result(folder)
        if result is not None:
            runs[int(seed)] = result
        else:
            error = read_error(folder)
            missing[int(seed)] = f"failed: {error}" if error else "not finished" if folder.exists() else "not begun"
    return runs, missing


def _line(name: str, row: Row, done: Mapping[str, Any], data: str, backbone: str | None) -> Line:
    runs, missing = done[row.name]
    metrics = sorted({metric for run in runs.values() for metric in (*run["values"], *run["measured"])})
    values = {metric: _values(runs, metric) for metric in metrics}
    base = done.get(row.base, ({}, {}))[0] if row.base else {}
    found = {metric: paired_difference(ours, _values(base, metric)) for metric, ours in values.items() if metric in METRICS}
    paper = reported(name, row.name, data, backbone)
    paper_base = None if paper is None or row.base is None else reported(name, row.base, paper.dataset, paper.backbone)
    same = paper is not None and paper_base is not None and paper_base.backbone == paper.backbone
    return Line(
        name=row.name,
        base=row.base,
        changes={} if row.base is None else differences(row.work, table(name).row(row.base).work),
        note=row.note,
        runs=runs,
        missing=missing,
        spreads={metric: spread(list(ours.values())) for metric, ours in values.items() if ours},
        differences={metric: difference for metric, difference in found.items() if difference is not None},
        paper=paper,
        paper_base=paper_base if same else None,
    )


def _tolerances(study: Path, results: Sequence[Mapping[str, Any]]) -> set[float]:
    """Those of the probings among the steps that are done."""
    works = [read_step(study / "steps" / run["step"]).work for run in results if run["kind"] == "probing"]
    return {work.probe.tolerance for work in works if isinstance(work, Probing)}


def _values(runs: Mapping[int, Mapping[str, Any]], metric: str) -> dict[int, float]:
    """Seed -> number, where there is one."""
    found = {seed: {**run["values"], **run["measured"]}.get(metric) for seed, run in runs.items()}
    return {seed: float(value) for seed, value in found.items() if isinstance(value, int | float)}


def _not_run(rows: Sequence[str], refused: Mapping[str, str]) -> list[str]:
    """Each reason why rows of the table have no line, with those rows."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(refused.get(row, "not asked for"), []).append(row)
    return [f"{reason}: {', '.join(names)}" for reason, names in found.items()]
