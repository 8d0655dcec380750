"""`tbps train`: a recipe on a data set, watched, interruptible and resumable."""

import signal
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Annotated, Self, final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tbps.cli.console import messages, output
from tbps.cli.models import best_device
from tbps.cli.standing import standing_table

if TYPE_CHECKING:
    from tbps.training.rehearsal import Rehearsal
    from tbps.training.state import EpochResult
    from tbps.training.trainer import StepReport


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="clip, clip_star, tbps_clip, simplified_tbps_clip, irra, mannequin_start, mannequin_tiny or mannequin_minute"
        ),
    ],
    data: Annotated[str, typer.Option(help="format of the data set: cuhk-pedes, icfg-pedes, rstpreid, tbps, ufine6926, folder")],
    root: Annotated[Path, typer.Option(help="folder of the data set")],
    out: Annotated[Path, typer.Option(help="run folder: settings, log, checkpoints, best model, report")] = Path("runs/train"),
    model: Annotated[str | None, typer.Option(help="start model: a folder or a Hugging Face id")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="a setting, such as schedule.epochs=3; repeatable")] = None,
    dry_run: Annotated[
        bool, typer.Option(help="print settings, updates, time and memory from three real updates; write nothing")
    ] = False,
    resume: Annotated[bool, typer.Option(help="go on with the run in --out")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda where there is one")] = None,
) -> None:
    """Train a model by a recipe.

    Validates every epoch and keeps the best model in OUT/best. Ctrl-C stops after the current update with a checkpoint; the
    same command with --resume goes on from there, and ends with the same weights as an uninterrupted run.

    tbps_clip and simplified_tbps_clip fine-tune a CLIP as in the paper, clip and clip_star are its baselines; irra
    adds a cross-modal encoder to a CLIP or to a TBPS-CLIP. mannequin_start trains a small model from random weights,
    mannequin_tiny fine-tunes that; mannequin_minute is over in about a minute.

    With --set 'lora={"rank": 8}' only low-rank adapters learn (package peft); --set precision=float16 trains as the paper does.

    On several GPUs or machines: torchrun --nproc-per-node 4 -m tbps.cli train ..., with the same result as on one.

    Example: tbps train mannequin_start --data folder --root mannequins --out runs/start --set schedule.epochs=3
    """
    from tbps import distributed
    from tbps.data.catalog import read_dataset
    from tbps.errors import SettingsError
    from tbps.study.recipes import recipe as find
    from tbps.training.rehearsal import rehearse
    from tbps.training.start import start_model
    from tbps.training.trainer import train as run

    if (out / "settings.json").exists() and not resume and not dry_run:
        raise SettingsError(f"{out} already holds a run; add --resume to go on with it, or give another --out")
    settings = find(recipe).override(dict(_assignment(text) for text in change or []))
    dataset = read_dataset(data, root)
    for warning in dataset.warnings:
        messages.print(f"note: {warning}")
    device = distributed.start(device or best_device())
    try:
        start = start_model(settings, dataset, model, device)
        with _Watch(shown=distributed.rank() == 0) as watch:
            if dry_run:
                output.print_json(settings.model_dump_json())
                output.print(_plan(rehearse(settings, start, dataset, watch)), highlight=False)
                return
            outcome = run(settings, start, dataset, out, watch, watch.stop)
    finally:
        distributed.stop()
    if not outcome.finished:
        output.print(f"stopped after update {outcome.step}; go on with the same command and --resume")
        raise typer.Exit(130)
    if outcome.standing is None:  # another process reports
        return
    output.print(standing_table(outcome.standing, f"{dataset.name}, best epoch {outcome.best.epoch if outcome.best else '-'}"))
    output.print(f"model {out / 'best'}\nlog {out / 'log.jsonl'}\npicture {out / 'report.png'}", highlight=False)


def _plan(rehearsal: "Rehearsal") -> str:
    seconds = int(rehearsal.seconds)
    return (
        f"{rehearsal.steps:,} updates, {rehearsal.steps_per_epoch:,} an epoch, {rehearsal.seconds_per_step:.2f} s each: "
        f"{seconds // 3600} h {seconds // 60 % 60:02} min without validation\n"
        f"{rehearsal.trained / 1e6:.1f} M of {rehearsal.parameters / 1e6:.1f} M parameters learn; "
        f"peak memory {rehearsal.peak_bytes / 2**30:.2f} GiB"
    )


def _assignment(text: str) -> tuple[str, str]:
    from tbps.errors import SettingsError

    key, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"--set {text!r} has no '='; write --set schedule.epochs=3")
    return key.strip(), value.strip()


@final
class _Watch:
    """Draws the bar, prints an epoch a line, and turns the first Ctrl-C into a wish to stop after the current update."""

    def __init__(self, shown: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[facts]}"), console=messages, disable=not shown)
        self._cache = self._bar.add_task("decoding", total=None, visible=False, facts="")
        self._division = self._bar.add_task("judging pairs", total=None, visible=False, facts="")
        self._steps = self._bar.add_task("training", total=None, visible=False, facts="")
        self._stop = False

    def stop(self) -> bool:
        return self._stop

    def on_cache(self, done: int, total: int) -> None:
        self._bar.update(self._cache, completed=done, total=total, visible=done < total)

    def on_division(self, done: int, total: int) -> None:
        self._bar.update(self._division, completed=done, total=total, visible=done < total)

    def on_step(self, report: "StepReport") -> None:
        facts = f"loss {report.loss:.3f}  rate {report.rate:.2e}  {report.pairs_per_second:.0f} pairs/s"
        self._bar.update(self._steps, completed=report.step, total=report.steps, facts=facts, visible=True)

    def on_epoch(self, result: "EpochResult") -> None:
        line = f"epoch {result.epoch:>3}  loss {result.loss:.4f}  val Rank-1 {result.r1:5.2f}  Rank-5 {result.r5:5.2f}"
        self._bar.console.print(f"{line}  Rank-10 {result.r10:5.2f}  mAP {result.map:5.2f}", highlight=False)

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True
        messages.print("stopping after this update; Ctrl-C again to stop at once")
