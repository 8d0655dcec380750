"""`tbps train`: train a model by a recipe or by a file of settings."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self, final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tbps.cli.console import messages, output, plain
from tbps.cli.interrupt import Interrupt
from tbps.cli.models import best_device
from tbps.cli.standing import standing_table

if TYPE_CHECKING:
    from tbps.training.observer import StepReport
    from tbps.training.profiling import Cost, Profile
    from tbps.training.rehearsal import Rehearsal
    from tbps.training.settings import TrainSettings
    from tbps.training.state import EpochResult


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="clip, clip_star, tbps_clip, simplified_tbps_clip, distilled, irra, coop, clip_adapter, mannequin_start, "
            "mannequin_tiny or mannequin_minute; leave out with --settings"
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="format of the data set: cuhk-pedes, icfg-pedes, rstpreid, tbps, ufine6926, folder")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="folder of the data set")] = None,
    out: Annotated[Path, typer.Option(help="run folder: settings, log, checkpoints, best model, report")] = Path("runs/train"),
    model: Annotated[str | None, typer.Option(help="start model: a folder or a Hugging Face id")] = None,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="settings.json of a run, instead of a recipe; --set still changes settings")
    ] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="a setting, such as schedule.epochs=3; repeatable")] = None,
    show_settings: Annotated[
        bool, typer.Option("--show-settings", help="print every setting with value, type and description; train nothing")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --show-settings: print JSON")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="print settings, updates, time and memory from three real updates; write nothing")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="profile eight updates, write OUT/trace.json and print the costs; train nothing")
    ] = False,
    resume: Annotated[bool, typer.Option(help="continue the run in --out")] = False,
    cache: Annotated[
        Path | None, typer.Option(help="folder of decoded images, shared by runs; default: $TBPS_CACHE or ~/.cache/tbps")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: cuda where there is one")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="continue without images whose files are missing; they are counted")
    ] = False,
) -> None:
    """Train a model by a recipe.

    Validates after every epoch and keeps the best model in OUT/best. Ctrl-C stops after the current update with a checkpoint; the
    same command with --resume continues from there, and ends with the same weights as an uninterrupted run.

    tbps_clip and simplified_tbps_clip fine-tune a CLIP as in the paper; clip and clip_star are its baselines. irra adds a
    cross-modal encoder to a CLIP or to a TBPS-CLIP. distilled prunes a TBPS-CLIP and trains the smaller model with the whole one as
    its teacher (--set prune.depth=0.5, prune.width=0.5). coop and clip_adapter freeze a CLIP and train a prompt before the
    captions, or an adapter after the image tower. mannequin_start trains a small model from random weights, mannequin_tiny
    fine-tunes that; mannequin_minute takes about a minute.

    --show-settings lists all settings of a recipe; --set changes them. OUT/settings.json records the settings of a run, and
    --settings FILE trains by such a file instead of a recipe. With --set lora.rank=8 only low-rank adapters are trained (package
    peft); --set precision=float16 trains in the paper's precision.

    On several GPUs or machines: torchrun --nproc-per-node 4 -m tbps.cli train ..., with the same result as on one.

    ICFG-PEDES has no val split, so a tenth of the train split's identities, at most 200, is used for validation. With
    --set learn_from=train+val the model learns from all 3,102 as in the paper, and the last epoch is kept.

    Images are decoded once for all runs. The decoded files show the people of the data set; `tbps data cache --erase` removes them.

    --profile shows the costs of an update, from a few real updates like those of --dry-run: its phases, the ten costliest
    operations, and a trace file.

    Example: tbps train mannequin_start --data folder --root mannequins --out runs/start --set schedule.epochs=3

    Example: tbps train mannequin_start --data folder --root mannequins --out runs/start --profile

    Example: tbps train mannequin_start --show-settings
    """
    from tbps import distributed
    from tbps.data import read_dataset
    from tbps.errors import SettingsError
    from tbps.training.profiling import profile_updates
    from tbps.training.rehearsal import rehearse
    from tbps.training.start import start_model
    from tbps.training.trainer import train as run

    if show_settings:
        _show_settings(_settings_of(recipe, settings_file, change), as_json)
        return
    if data is None or root is None:
        raise SettingsError("training needs a data set; give its format with --data and its folder with --root")
    if (out / "settings.json").exists() and not (resume or dry_run or profile):
        raise SettingsError(f"{out} already holds a run; add --resume to continue it, or give another --out")
    settings = _settings_of(recipe, settings_file, change, begun=out if resume else None)
    dataset = read_dataset(data, root, allow_missing=allow_missing)
    for warning in dataset.warnings:
        messages.print(f"note: {warning}")
    device = distributed.start(device or best_device())
    try:
        start = start_model(settings, dataset, model, device)
        with (
            Interrupt("stopping after this update; Ctrl-C again to stop at once") as interrupt,
            _Watch(shown=distributed.rank() == 0) as watch,
        ):
            if dry_run:
                output.print_json(settings.model_dump_json())
                output.print(_plan(rehearse(settings, start, dataset, watch)), highlight=False)
                return
            if profile:
                found = profile_updates(settings, start, dataset, out / "trace.json", watch)
                if distributed.rank() == 0:
                    _print_profile(found)
                return
            outcome = run(settings, start, dataset, out, watch, interrupt.wished, cache=cache)
    finally:
        distributed.stop()
    if not outcome.finished:
        output.print(f"stopped after update {outcome.step}; to continue, run the same command with --resume")
        raise typer.Exit(130)
    if outcome.standing is None:  # another process reports
        return
    kept = f"best epoch {outcome.best.epoch}" if outcome.best else "last epoch, chosen without validation"
    output.print(standing_table(outcome.standing, f"{dataset.name}, {kept}"))
    output.print(f"model {out / 'best'}\nlog {out / 'log.jsonl'}\npicture {out / 'report.png'}", highlight=False)


def _settings_of(recipe: str | None, file: Path | None, change: list[str] | None, begun: Path | None = None) -> "TrainSettings":
    """Settings of a recipe or of a file, with changes. begun: folder of the run to continue with them."""
    from tbps.errors import SettingsError
    from tbps.study.recipes import FORMER
    from tbps.study.recipes import recipe as find
    from tbps.training.run_folder import holds, read_settings, unknown_then

    changes = assignments(change)
    if (recipe is None) == (file is None):
        raise SettingsError("give either a recipe, such as simplified_tbps_clip, or a file with --settings")
    if file is not None:
        settings = read_settings(file).override(changes)
    elif recipe is not None:
        settings = find(recipe).override(changes)
        if begun is not None and recipe in FORMER and not holds(begun, settings):
            former = FORMER[recipe]().override(changes)
            settings = former if holds(begun, former) else settings
    for setting in () if begun is None else unknown_then(begun, settings):
        messages.print(plain(f"note: the run in {begun} goes on with {setting}, the behaviour of the version that began it"))
    return settings


def _show_settings(settings: "TrainSettings", as_json: bool) -> None:
    from tbps.config import described

    found = described(settings)
    if as_json:
        print(json.dumps([asdict(setting) for setting in found], indent=2))
        return
    for setting in found:
        output.print(plain(f"{setting.name} = {setting.default or '(required)'}  ({setting.type})"), soft_wrap=True)
        output.print(plain(f"    {setting.description}"), soft_wrap=True)


def _plan(rehearsal: "Rehearsal") -> str:
    seconds = int(rehearsal.seconds)
    return (
        f"{rehearsal.steps:,} updates, {rehearsal.steps_per_epoch:,} per epoch, {rehearsal.seconds_per_step:.2f} s each: "
        f"{seconds // 3600} h {seconds // 60 % 60:02} min without validation\n"
        f"{rehearsal.trained:,} of {rehearsal.parameters:,} parameters are trained; "
        f"peak memory {rehearsal.peak_bytes / 2**30:.2f} GiB"
    )


def _print_profile(profile: "Profile") -> None:
    output.print(_costs("phases, including the operations that they call", profile.phases))
    output.print(_costs("costliest operations, excluding the operations that they call", profile.operations))
    output.print(plain(f"means of {profile.updates} updates; trace for https://ui.perfetto.dev: {profile.trace}"), soft_wrap=True)


def _costs(title: str, costs: "Sequence[Cost]") -> Table:
    table = Table("", title=title, title_justify="left")
    on_device = any(cost.device_seconds is not None for cost in costs)
    for heading in ("ms per update", *(["ms on the device"] if on_device else []), "calls", "share, %"):
        table.add_column(heading, justify="right")
    for cost in costs:
        device = [] if cost.device_seconds is None else [f"{1000 * cost.device_seconds:,.2f}"]
        calls, share = f"{cost.calls:,.0f}", f"{100 * cost.share:.1f}"
        table.add_row(plain(cost.name), f"{1000 * cost.seconds:,.2f}", *device, calls, share)
    return table


def assignments(change: list[str] | None) -> dict[str, str]:
    """Keys and values of `--set KEY=VALUE` options. Raises SettingsError for one without '='."""
    from tbps.errors import SettingsError

    found = {}
    for text in change or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise SettingsError(f"--set {text!r} has no '='; write --set schedule.epochs=3")
        found[key.strip()] = value.strip()
    return found


@final
class _Watch:
    """Draws progress bars and prints one line per epoch."""

    def __init__(self, shown: bool) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[facts]}"), console=messages, disable=not shown)
        self._cache = self._bar.add_task("decoding", total=None, visible=False, facts="")
        self._division = self._bar.add_task("judging pairs", total=None, visible=False, facts="")
        self._steps = self._bar.add_task("training", total=None, visible=False, facts="")

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
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
