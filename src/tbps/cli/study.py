"""`tbps study`: run the paper's tables, and report the results next to the paper's numbers."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

import typer
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from tbps.cli.console import messages, output, plain
from tbps.cli.interrupt import Interrupt
from tbps.cli.models import best_device
from tbps.cli.train import assignments

if TYPE_CHECKING:
    from tbps.study.executors import StudyObserver
    from tbps.study.plan import Material, Planned
    from tbps.study.step import End, Step
    from tbps.study.work.operations import Estimate

study = typer.Typer(name="study", help="Run the paper's tables on your data and model, and report them.", no_args_is_help=True)

_NAMES = "name of a table (`tbps study list`), several, or all"
_UPDATES_PER_REPORT = 10
_DATA = "format of the data set: cuhk-pedes, icfg-pedes, rstpreid, tbps, ufine6926, folder"


@study.command("list")
def list_tables() -> None:
    """List the tables: name, source (a table of the paper, or this project), and rows.

    Example: tbps study list
    """
    from tbps.study.ablations import TABLES, table

    for name, build in TABLES.items():
        ours = table(name)
        output.print(Text(name, style="bold") + plain(f"  ({ours.source})"))
        output.print(Padding(plain(" ".join((build.__doc__ or "").split())), (0, 0, 0, 2)))
        output.print(Padding(plain(", ".join(row.name for row in ours.rows)), (0, 0, 1, 2)))


@study.command()
def run(
    names: Annotated[list[str], typer.Argument(help=_NAMES)],
    data: Annotated[str, typer.Option(help=_DATA)],
    root: Annotated[Path, typer.Option(help="folder of the data set; for a --dry-run it may be missing")],
    model: Annotated[str | None, typer.Option(help="start model of every row: a folder or a Hugging Face id")] = None,
    out: Annotated[Path, typer.Option(help="folder of the study; several tables share one")] = Path("runs/study"),
    seeds: Annotated[str, typer.Option(help="how many seeds, counted from 0, or a list such as 0,4,7")] = "3",
    rows: Annotated[str | None, typer.Option(help="only these rows, separated by commas")] = None,
    epochs: Annotated[int | None, typer.Option(help="epochs of every row, instead of its recipe's")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="a setting of every row, such as batch_size=128")] = None,
    on: Annotated[str, typer.Option(help="here, gpus (one step per GPU), slots (see --slots) or ray (RAY_ADDRESS)")] = "here",
    slots: Annotated[int, typer.Option(help="processes at a time with --on slots, sharing the cores", min=1)] = 2,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda where there is one")] = None,
    dry_run: Annotated[bool, typer.Option(help="print the cost of every row; write nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --dry-run: every setting of every row as JSON")] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="continue without images whose files are missing; they are counted")
    ] = False,
) -> None:
    """Train and score the rows of tables, every row with every seed.

    Finished steps are skipped, interrupted ones continue, and a step that fails is reported while the others run. So the same
    command again completes a study, and more --rows or --seeds extend it. Settings that several tables share are run once.
    Ctrl-C stops after the current update.

    Example: tbps study run tricks losses --data cuhk-pedes --root CUHK-PEDES --model openai/clip-vit-base-patch32 --dry-run
    """
    from tbps.errors import SettingsError
    from tbps.study.ablations import TABLES, table
    from tbps.study.plan import imagine_material, open_material, plan, record_of, steps_of

    if on not in ("here", "gpus", "slots", "ray"):
        raise SettingsError(f"--on {on!r} is none of here, gpus, slots, ray")
    changes = assignments(change) | ({} if epochs is None else {"schedule.epochs": epochs})
    tables = [table(name) for name in (TABLES if "all" in names else dict.fromkeys(names))]
    wanted = [name.strip() for name in rows.split(",")] if rows else []
    device = device or best_device()
    material = (
        imagine_material(data, root, model, allow_missing=allow_missing)
        if dry_run
        else open_material(data, root, model, device, allow_missing=allow_missing)
    )
    for warning in material.dataset.warnings if material.dataset else ():
        messages.print(plain(f"note: {warning}"))
    plans = {ours.name: plan(ours, wanted, parse_seeds(seeds), changes, material) for ours in tables}
    planned = [p for found in plans.values() for p in found]
    if dry_run:
        _show_plan(plans, material, out, as_json)
        return
    for ours in tables:
        record_of(ours, plans[ours.name], changes, material).save(out)
    for line in dict.fromkeys(f"not run: {name} {p.row.name}: {p.refused}" for name in plans for p in plans[name] if p.refused):
        output.print(plain(line), soft_wrap=True)
    steps = steps_of(planned)
    labels = _labels(plans)
    with (
        Interrupt("stopping after this update; Ctrl-C again to stop at once") as interrupt,
        _Watch(out, steps, material, labels) as watch,
    ):
        ends = _run_on(on, slots, out, steps, device, watch, interrupt, material)
    _conclude(out, steps, ends, labels)


@study.command()
def report(
    names: Annotated[list[str] | None, typer.Argument(help=_NAMES)] = None,
    study_folder: Annotated[Path, typer.Option("--study", help="folder of the study")] = Path("runs/study"),
    out: Annotated[Path | None, typer.Option(help="where to write; by default STUDY/report")] = None,
) -> None:
    """Write the report: report.md with its plots, report.html (one file, plots in it), summary.csv and runs.csv.

    The report has mean and spread over seeds, the difference to each table's base with a bootstrap interval, the paper's numbers,
    and what was not run. It can be written while a study runs.

    Example: tbps study report --study runs/study --out report
    """
    from tbps.study.report.files import write_reports
    from tbps.study.report.tables import read_study

    wanted = [] if not names or "all" in names else names
    for file in write_reports(read_study(study_folder, wanted), out or study_folder / "report"):
        output.print(plain(str(file)))


@study.command()
def diagnose(
    model: Annotated[str, typer.Option(help="model folder or Hugging Face id")],
    root: Annotated[Path, typer.Option(help="folder of the data set")],
    data: Annotated[str, typer.Option(help=f"{_DATA}; only folder has attributes")] = "folder",
    split: Annotated[str, typer.Option(help="train, val or test")] = "test",
    out: Annotated[Path, typer.Option(help="where to write diagnosis.md and failures.png")] = Path("runs/diagnosis"),
) -> None:
    """Diagnose the errors of a model, on data with attributes (mannequins, or any folder with attribute columns).

    Writes Rank-1 by the attributes that captions mention, confusion between near-twins, the effect of one swapped word ("red" to
    "blue") on the score, and a picture of the failures with the largest margin.

    Example: tbps study diagnose --model models/mannequin-tiny --data folder --root mannequins --out diagnosis
    """
    from tbps.cli.embed import embed_with
    from tbps.data import read_dataset
    from tbps.model import load
    from tbps.study.diagnosis import diagnose as examine
    from tbps.study.report.diagnosis import write_diagnosis

    images = read_dataset(data, root).split(split)
    embedded = embed_with(model, images, split)
    found = examine(images, embedded, load(model, best_device()).encode_texts)
    for file in write_diagnosis(found, images, embedded, f"{model} on {data} ({split})", out):
        output.print(plain(str(file)))


def parse_seeds(text: str) -> list[int]:
    from tbps.errors import SettingsError

    try:
        found = [int(part) for part in text.split(",") if part.strip()] if "," in text else list(range(int(text)))
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise SettingsError(f"--seeds {text!r}: give how many, such as 3, or a list, such as 0,4,7 (a single seed: 4,)")
    return found


def _run_on(
    on: str,
    slots: int,
    out: Path,
    steps: "Sequence[Step]",
    device: str,
    watch: "StudyObserver",
    stop: Interrupt,
    material: "Material",
) -> "Mapping[str, End]":
    from tbps.errors import SettingsError
    from tbps.study.executors import cpu_slots, gpu_slots, run_here, run_in_slots, run_on_ray

    if on == "gpus":
        found = gpu_slots()
        if not found:
            raise SettingsError("--on gpus: there is no GPU here; use --on slots for processes on the CPU")
        return run_in_slots(out, steps, found, watch, stop.wished)
    if on == "slots":
        return run_in_slots(out, steps, cpu_slots(slots), watch, stop.wished)
    if on == "ray":
        return run_on_ray(out, steps, device, watch, stop.wished)
    return run_here(out, steps, device, watch, stop.wished, material.dataset)


def _labels(plans: "Mapping[str, Sequence[Planned]]") -> dict[str, str]:
    """Step fingerprint -> label with the first table, row and seed that the step belongs to."""
    labels: dict[str, str] = {}
    for name, planned in plans.items():
        for p in planned:
            labels.setdefault(p.step.fingerprint, f"{name} {p.row.name}, seed {p.seed}")
            for step in p.before:
                labels.setdefault(step.fingerprint, f"{name} {p.row.name}, preceding step, seed {p.seed}")
    return labels


def _conclude(out: Path, steps: "Sequence[Step]", ends: "Mapping[str, End]", labels: Mapping[str, str]) -> None:
    """Print how the steps ended; exit code 130 if the study was stopped, 1 if a step failed."""
    from tbps.study.step import StepState

    done = sum(end.state is StepState.DONE for end in ends.values())
    failed = {name: end for name, end in ends.items() if end.state is StepState.FAILED}
    for name, end in failed.items():
        output.print(plain(f"failed: {labels[name]}: {end.error} ({out / 'steps' / name})"), soft_wrap=True)
    output.print(f"{done} of {len(steps)} steps are done, {len(failed)} failed; tbps study report --study {out}", highlight=False)
    if done + len(failed) < len(steps):
        output.print("stopped; run the same command again to continue")
        raise typer.Exit(130)
    if failed:
        raise typer.Exit(1)


def _show_plan(plans: "Mapping[str, Sequence[Planned]]", material: "Material", out: Path, as_json: bool) -> None:
    from tbps.errors import DataError
    from tbps.study.plan import estimate, measured_rate, steps_of

    if as_json:
        rows = {
            name: {p.row.name: p.step.work.model_dump(mode="json") for p in planned if p.seed == planned[0].seed}
            for name, planned in plans.items()
        }
        output.print_json(json.dumps(rows))
        return
    about = "published counts" if material.dataset is None else f"{len(material.dataset.images):,} images"
    output.print(f"{material.data.name}, {about}; start {material.start.name} {material.backbone or ''}".rstrip(), highlight=False)
    estimates: dict[str, Estimate] = {}
    refused = []
    labels = _labels(plans)
    for step in steps_of([p for planned in plans.values() for p in planned]):
        try:
            estimates[step.fingerprint] = estimate(step, material)
        except DataError as error:
            refused.append(f"{labels[step.fingerprint]}: {error}")
    for name, planned in plans.items():
        output.print(_plan_table(name, planned, estimates))
    updates = sum(found.updates for found in estimates.values())
    flops = [found.flops for found in estimates.values() if found.flops is not None]
    work = f", about {_digits(sum(flops) / 1e15)} PFLOP" if flops else ""
    output.print(f"{len(estimates)} steps, those that tables share counted once: {updates:,} updates{work}", highlight=False)
    rate = measured_rate(out)
    if rate is not None and flops:
        known = f"at the rate of the {rate[1]} steps that are done in {out}"
        output.print(plain(f"about {_duration(rate[0] * sum(flops))} of updates one after another, {known}"))
    for line in refused:
        output.print(plain(f"cannot run: {line}"))


def _plan_table(name: str, planned: "Sequence[Planned]", estimates: "Mapping[str, Estimate]") -> Table:
    from tbps.study.ablations import table
    from tbps.study.plan import differences

    seeds = list(dict.fromkeys(p.seed for p in planned))
    shown = Table(title=f"{name}, seeds {', '.join(map(str, seeds))}", title_justify="left", title_style="bold")
    shown.add_column("row", no_wrap=True)
    shown.add_column("differs from its base in", overflow="fold")
    for heading in ("parameters, M", "updates per seed", "TFLOP per seed"):
        shown.add_column(heading, justify="right")
    for p in (p for p in planned if p.seed == seeds[0]):
        base = None if p.row.base is None else table(name).row(p.row.base)
        changed = {} if base is None else differences(p.row.work, base.work)
        said = [f"{key}={json.dumps(value)}" for key, value in changed.items()]
        said += [f"identities={p.row.work.identities:g}"] if p.row.work.identities < 1 else []
        said += [p.row.note] if p.row.note else []
        found = estimates.get(p.step.fingerprint)
        flops = "" if found is None or found.flops is None else _digits(found.flops / 1e12)
        parameters = "" if found is None or found.parameters is None else f"{found.parameters / 1e6:,.1f}"
        text = ", ".join(said) if said else "" if base else "(base)"
        updates = "not run" if p.refused else f"{found.updates:,}" if found else "too few pairs"
        shown.add_row(plain(p.row.name), plain(p.refused or text), parameters, updates, flops)
    return shown


@final
class _Watch:
    """Draws one progress bar for the whole study with the time left, and one per running step.

    The time left is estimated from the rate of work since the command started.
    """

    def __init__(self, out: Path, steps: "Sequence[Step]", material: "Material", labels: Mapping[str, str]) -> None:
        from tbps.errors import DataError
        from tbps.study.plan import estimate
        from tbps.study.result import RESULT

        self._labels = labels
        self._out = out
        self._size: dict[str, float] = {}
        for step in steps:
            try:
                found = estimate(step, material)
                self._size[step.fingerprint] = found.flops if found.flops is not None else float(found.updates)
            except DataError:  # the step reports it when it runs
                self._size[step.fingerprint] = 0.0
        self._share = {step.fingerprint: float((step.folder(out) / RESULT).exists()) for step in steps}
        self._before = self._done()
        self._started = time.monotonic()
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"), console=messages)
        self._whole = self._bar.add_task("study", total=1.0, facts="")
        self._tasks: dict[str, Any] = {}
        self._first_share: dict[str, float] = {}

    def on_start(self, step: "Step") -> None:
        if self._share[step.fingerprint] < 1:
            self._tasks[step.fingerprint] = self._bar.add_task(self._labels[step.fingerprint], total=None, facts="")

    def on_update(self, step: "Step", done: int, total: int) -> None:
        name = step.fingerprint
        if name not in self._first_share:  # earlier work of a resumed step is not used to estimate the time left
            self._first_share[name] = max(0, done - _UPDATES_PER_REPORT) / total
            self._before += self._first_share[name] * self._size[name]
        self._share[name] = done / total
        if name in self._tasks:
            self._bar.update(self._tasks[name], completed=done, total=total, facts=f"{done:,} of {total:,}")
        self._show()

    def on_end(self, step: "Step", end: "End") -> None:
        from tbps.study.result import read_result
        from tbps.study.step import StepState

        name = step.fingerprint
        if name in self._tasks:
            self._bar.remove_task(self._tasks.pop(name))
            result = read_result(step.folder(self._out)) if end.state is StepState.DONE else None
            said = end.error if result is None else f"Rank-1 {result.values['r1']:.2f}  mAP {result.values['map']:.2f}"
            messages.print(plain(f"{self._labels[name]}: {end.state.value}  {said}"), soft_wrap=True)
        if end.state is not StepState.STOPPED:
            self._share[name] = 1.0
        self._show()

    def _done(self) -> float:
        return sum(share * self._size[name] for name, share in self._share.items())

    def _show(self) -> None:
        whole, done = sum(self._size.values()), self._done()
        fresh = done - self._before
        finished = sum(share == 1 for share in self._share.values())
        left = "" if fresh <= 0 else _duration((whole - done) * (time.monotonic() - self._started) / fresh)
        facts = f"{finished} of {len(self._share)} steps{f', {left} left' if left else ''}"
        self._bar.update(self._whole, completed=done / whole if whole else 1.0, facts=facts)

    def __enter__(self) -> "_Watch":
        self._bar.start()
        self._show()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _duration(seconds: float) -> str:
    minutes = int(seconds / 60 + 0.5)
    if seconds < 90:
        return f"{int(seconds)} s"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
