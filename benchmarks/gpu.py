"""All GPU measurements in one call of under ten minutes: `python benchmarks/gpu.py [--budget 560]`.

    --device cpu --toy   runs every part at toy size, to check the script without a GPU

The data set has the size of CUHK-PEDES: 34,054 images, 68,126 captions and 11,003 people for training, 3,078 and 3,074 images in
the other splits. Drawing that many mannequins would take too long, so 400 images are listed repeatedly; each listing is decoded
separately. Towers are ViT-B/16 with random weights, bfloat16, global batch 320.

Parts, in this order. A part that no longer fits the budget is skipped and reported. The result file is written after each part:

    machine      matrix rates and bandwidth
    cache        the data set decoded by all processes, then copied to the device
    full         steps of `tbps_clip`: the whole batch where it fits, else micro-batches; share of the matrix rate by the
                 operations of `floor.py` (re-encoding of micro-batches is not counted)
    plain        `plain.py` fed by its workers, at the largest batch of 320, 160, 80 that fits
    breakdown    time of each part of a step, with a synchronisation after each
    simplified   steps of `simplified_tbps_clip`
    micro        the full recipe in micro-batches of 80 and 40
    curve        the full recipe at batches of 40 to 640
    compiled     the full recipe with the image tower compiled, and the time of compiling
    run          five epochs with validation and test: complete where the budget allows, else extrapolated

`--parts machine cache full run` selects parts, so that `run` fits the budget.
"""

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from floor import machine
from gpu_bench import FULL, TOY, Bench
from measuring import RUNS, Measurement, say, timed, wait_for
from memory import TooLittleMemory, within_limit
from plain import PlainTrainer
from results import FOLDER, Benchmark, keep
from subjects import endless

from tbps.training.encode import encode
from tbps.training.log import NoLog
from tbps.training.objective import Labels, objective
from tbps.training.views import draw_views


def part_machine(bench: Bench) -> None:
    bench.machine, rows = machine(str(bench.device), bench.sizes.matrix, RUNS)
    bench.rows += rows


def part_cache(bench: Bench) -> None:
    started = time.perf_counter()
    with bench.run(bench.settings("simplified"), bench.dataset) as run:
        wait_for(bench.device)
        bench.rows.append(
            Measurement("all splits decoded into the cache, model and data on the device", "s", (time.perf_counter() - started,))
        )
        count = len(run.caches["train"].images)
        on_device = isinstance(run.batches.images, torch.Tensor)
        bench.note(f"{count:,} training pictures, {'on the device' if on_device else 'in the memory of the machine'}")


def part_full(bench: Bench) -> None:
    batch = bench.sizes.batch

    def steps() -> None:
        with bench.run(bench.settings("full"), bench.small(batch)) as run:
            times = bench.time_steps(run)
            bench.step_seconds = sum(times) / len(times)
            what = f"full recipe, {bench.micro or batch} pairs at a time"
            bench.keep_steps(what, times, batch, "full")
            bench.keep_updates_of_a_run(what, times)

    for bench.micro in (None, batch // 2, batch // 4):
        if bench.fits(steps, f"full recipe, {bench.micro or batch} pairs at a time"):
            return
    raise MemoryError("the full recipe does not fit this device in a quarter of the batch")


def part_plain(bench: Bench) -> None:
    """Measures the plain trainer with its data from disk; batches wait for the workers as in training."""

    def steps(batch: int) -> None:
        settings = bench.settings("full", batch_size=batch, **{"image_augmentation.with_replacement": True})
        trainer = PlainTrainer(settings, bench.copied(), bench.dataset, bench.workers)
        batches = iter(trainer.batches())
        for _ in range(bench.sizes.warm):
            trainer.update(next(batches))
        times = tuple(timed(lambda: trainer.update(next(batches)), device=bench.device) for _ in range(bench.sizes.steps))
        bench.keep_steps(f"plain trainer, batch {batch}", times, batch, "full")
        plain, ours = sum(times) / len(times) / batch, bench.step_seconds / bench.sizes.batch
        if ours:
            bench.rows.append(Measurement("pairs a second, full recipe / plain trainer (means)", "ratio", (plain / ours,)))

    for batch in (bench.sizes.batch, bench.sizes.batch // 2, bench.sizes.batch // 4):
        if bench.fits(partial(steps, batch), f"plain trainer, batch {batch}"):
            return


def part_breakdown(bench: Bench) -> None:
    """Measures the parts of an update one after another, on the whole batch, or on one micro-batch where only that fits."""
    batch = bench.micro or bench.sizes.batch
    settings = bench.settings("full", batch_size=batch, micro_batch=None)
    spent: dict[str, list[float]] = {}

    def piece(name: str, work: Callable[..., Any], *given: Any) -> Any:
        wait_for(bench.device)
        started = time.perf_counter()
        found = work(*given)
        wait_for(bench.device)
        spent.setdefault(name, []).append(time.perf_counter() - started)
        return found

    with bench.run(settings, bench.small(batch)) as run:
        clip, heads, spec = run.model.clip, run.heads, run.model.spec
        vocabulary, (optimizer,) = clip.config.text_config.vocab_size, run.state.optimizers
        towers = partial(encode, settings=settings, calm=True, words=True)
        stream = endless(run.batches)
        clip.train()
        for step in range(bench.sizes.warm + bench.sizes.steps):
            given = piece("batch drawn, captions augmented and tokenised", next, stream).to(bench.device)
            views = piece("views augmented", draw_views, given, settings, spec, vocabulary, step)
            features = piece("towers forward", towers, clip, heads, views)
            labels, scale = Labels(given.identities, run.known), clip.logit_scale.exp()
            losses = piece("losses", objective, features, labels, scale, 0.5, heads, settings.losses)
            piece("backward", torch.autograd.backward, losses.total)
            piece("optimizer", optimizer.step)
            optimizer.zero_grad()
    for name, times in spent.items():
        bench.rows.append(Measurement(f"breakdown, batch {batch}: {name}", "s", tuple(times[bench.sizes.warm :])))


def part_simplified(bench: Bench) -> None:
    with bench.run(bench.settings("simplified", micro_batch=None), bench.small(bench.sizes.batch)) as run:
        times = bench.time_steps(run)
        bench.keep_steps("simplified recipe, whole batch", times, bench.sizes.batch, "simplified")
        bench.keep_updates_of_a_run("simplified recipe, whole batch", times)


def part_micro(bench: Bench) -> None:
    for micro in bench.sizes.micro:
        with bench.run(bench.settings("full", micro_batch=micro), bench.small(bench.sizes.batch)) as run:
            bench.keep_steps(f"full recipe in micro-batches of {micro}", bench.time_steps(run), bench.sizes.batch, "full")


def part_curve(bench: Bench) -> None:
    def steps(batch: int) -> None:
        with bench.run(bench.settings("full", batch_size=batch, micro_batch=None), bench.small(batch)) as run:
            bench.keep_steps(f"full recipe, batch {batch}", bench.time_steps(run), batch, "full")

    for batch in bench.sizes.curve:
        if not bench.fits(partial(steps, batch), f"full recipe, batch {batch}"):
            return


def part_compiled(bench: Bench) -> None:
    """Measures the compiled image tower, on a GPU only: compiling toy sizes on a CPU takes half a minute and is not informative."""
    if bench.device.type != "cuda":
        return
    started = time.perf_counter()
    with bench.run(bench.settings("full", compile_image_tower=True), bench.small(bench.sizes.batch)) as run:
        run.update(NoLog())
        wait_for(bench.device)
        bench.rows.append(Measurement("compiled image tower: start and first step", "s", (time.perf_counter() - started,)))
        bench.keep_steps("full recipe, image tower compiled", bench.time_steps(run), bench.sizes.batch, "full")


def part_run(bench: Bench) -> None:
    """Measures a whole run, or as many of its steps as the budget allows, and evaluations."""
    settings = bench.settings("full")
    started = time.perf_counter()
    with bench.run(settings, bench.dataset) as run:
        wait_for(bench.device)
        start = time.perf_counter() - started
        done, evaluations = 0, []
        reserve = 20.0 if bench.device.type == "cuda" else 0.0  # for the last evaluation and writing the file
        begun = time.perf_counter()
        while done == 0 or (done < run.steps and bench.left > reserve):
            run.update(NoLog())
            done += 1
            if done % run.steps_per_epoch == 0:
                evaluations.append(timed(lambda: run.validate(NoLog()), device=bench.device))
        wait_for(bench.device)
        updating = time.perf_counter() - begun - sum(evaluations)
        if not evaluations:
            evaluations.append(timed(lambda: run.validate(NoLog()), device=bench.device))
        test = timed(run.report, device=bench.device) if done == run.steps else evaluations[-1]
        epochs = settings.schedule.epochs
        seconds = start + updating * run.steps / done + epochs * sum(evaluations) / len(evaluations) + test
        bench.note(f"run: {done} of {run.steps} updates done, {len(evaluations)} of {epochs} evaluations")
        kind = "measured" if done == run.steps else f"extrapolated from {done} of {run.steps} updates"
        bench.rows += [
            Measurement(f"five epochs of the full recipe with evaluation, cache at hand, {kind}", "s", (seconds,)),
            Measurement("validation of an epoch", "s", tuple(evaluations)),
            Measurement("updates of the run", "s a step", (updating / done,)),
        ]


PARTS: dict[str, tuple[Callable[[Bench], None], float]] = {
    "machine": (part_machine, 5),
    "cache": (part_cache, 40),
    "full": (part_full, 30),
    "plain": (part_plain, 50),
    "breakdown": (part_breakdown, 20),
    "simplified": (part_simplified, 15),
    "micro": (part_micro, 40),
    "curve": (part_curve, 60),
    "compiled": (part_compiled, 90),
    "run": (part_run, 30),
}
"""Each part with the seconds of the budget that it needs to start."""


def measure(device: str, toy: bool, budget: float, folder: Path, parts: Sequence[str] = tuple(PARTS)) -> tuple[Path, list[str]]:
    """Runs the parts; returns the result file, which is rewritten after each part, and the parts that failed.

    A failed part is reported with its error and the others run, because the machine may not be available again.
    """
    started, failed = datetime.now(), []
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(device, TOY if toy else FULL, budget, Path(temporary))
        for name in parts:
            part, needs = PARTS[name]
            if bench.left < (0 if toy else needs):
                bench.note(f"{name}: skipped, only {bench.left:.0f} s of the budget were left")
                continue
            print(f"[{bench.left:.0f} s left] {name}", flush=True)
            known = len(bench.rows)
            try:
                part(bench)
            except Exception as error:
                traceback.print_exc()
                failed.append(name)
                bench.note(f"{name}: failed with {type(error).__name__}: {error}")
            for row in bench.rows[known:]:
                say(f"{row.what}: {row.median:,.4g} {row.unit}")
            file = keep([finding(bench, device)], toy, started, folder, "gpu")
    return file, failed


def finding(bench: Bench, device: str) -> Benchmark:
    """Returns the measurements so far."""
    train = f"{bench.sizes.train[0]:,} images, {bench.sizes.train[1]:,} captions"
    facts = {"device": device, "train": train, "drawn crops": bench.sizes.drawn, "notes": "; ".join(bench.notes)}
    return Benchmark("gpu", list(bench.rows), facts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ... or cpu")
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that the benchmark runs")
    parser.add_argument("--budget", type=float, default=560, help="total seconds")
    parser.add_argument(
        "--parts", nargs="+", default=list(PARTS), choices=list(PARTS), help="only these; the cache is needed by all"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder for the JSON file and the table")
    given = parser.parse_args()
    if torch.device(given.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here; --device cpu --toy shows that the script runs")
    try:
        with within_limit("gpu", given.toy):
            file, failed = measure(given.device, given.toy, given.budget, given.folder, given.parts)
    except TooLittleMemory as error:
        sys.exit(f"error: {error}")
    print(f"\n{file.with_suffix('.md').read_text(encoding='utf-8')}\n{file}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
