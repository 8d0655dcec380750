"""Who runs the steps: this process one after another, processes in slots (one a GPU), or a Ray cluster. The results are the same.

A step is done in its folder, so whoever does it needs the study's folder, the data and the model at the same paths.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

import torch

from tbps.data.records import PersonDataset
from tbps.machine import available_cores
from tbps.optional import needed
from tbps.redact import redacted
from tbps.storage import write_text
from tbps.study.step import ERROR, RESULT, End, State, Step, run_step, write_step
from tbps.study.work.kinds import ALONE
from tbps.study.worker import STOP, Updates, run_recorded
from tbps.study.worker import __name__ as WORKER


class Watch(Protocol):
    """Who watches a study: the command line draws it, a test records it. With slots, calls come from several threads."""

    def on_start(self, step: Step) -> None: ...
    def on_update(self, step: Step, done: int, total: int) -> None: ...
    def on_end(self, step: Step, end: End) -> None: ...


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a process runs: its device, and what it finds in its environment."""

    device: str
    environment: Mapping[str, str]


def gpu_slots() -> list[Slot]:
    """One slot a GPU of this machine, or of those that CUDA_VISIBLE_DEVICES names."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [name for name in visible if name] or [str(number) for number in range(torch.cuda.device_count())]
    return [Slot("cuda", {"CUDA_VISIBLE_DEVICES": name}) for name in names[: torch.cuda.device_count()]]


def cpu_slots(count: int) -> list[Slot]:
    """So many processes that share the cores, unless OMP_NUM_THREADS says otherwise."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, available_cores() // count))
    return [Slot("cpu", {"OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""})] * count


def run_here(
    study: Path,
    steps: Sequence[Step],
    device: str,
    watch: Watch,
    stop: Callable[[], bool],
    dataset: PersonDataset | None = None,
) -> dict[str, End]:
    """One after another in this process, what has to be measured alone in one of its own; by fingerprint how each ended.

    Steps that were not begun when `stop` came true are absent.
    """
    ends: dict[str, End] = {}
    for step in (step for level in _levels(steps) for step in level):
        if stop():
            break
        watch.on_start(step)
        if step.work.kind in ALONE:
            end = _supervised(study, step, Slot(device, {}), watch, stop)
        else:
            end = _in_this_process(study, step, device, watch, stop, dataset)
        ends[step.fingerprint] = end
        watch.on_end(step, end)
    return ends


def run_in_slots(
    study: Path, steps: Sequence[Step], slots: Sequence[Slot], watch: Watch, stop: Callable[[], bool]
) -> dict[str, End]:
    """As many at a time as there are slots, each step in a process of its own; on a CPU, what is measured alone comes last."""
    ends: dict[str, End] = {}
    for level in _levels(steps):
        alone = [step for step in level if step.work.kind in ALONE and slots[0].device == "cpu"]
        for part, used in (([step for step in level if step not in alone], slots), (alone, slots[:1])):
            ends |= _fill(study, part, used, watch, stop)
    return ends


def run_on_ray(study: Path, steps: Sequence[Step], device: str, watch: Watch, stop: Callable[[], bool]) -> dict[str, End]:
    """On the Ray cluster of RAY_ADDRESS, a GPU or a core a step. Raises MissingDependencyError without the package `ray`."""
    ray = needed("ray", "--on ray", "ray")
    ray.init(address="auto", ignore_reinit_error=True, log_to_driver=False)
    resources = {"num_cpus": 1, "num_gpus": 1 if device == "cuda" else 0}
    remote = ray.remote(**resources, max_retries=0, max_calls=1)(run_recorded)  # a process a step: memory is measured by process
    flag = study / STOP
    flag.unlink(missing_ok=True)
    ends: dict[str, End] = {}
    for level in _levels(steps):
        waiting = {}
        for step in [] if stop() else level:
            write_step(study, step)
            watch.on_start(step)
            waiting[remote.remote(str(study.resolve()), step.fingerprint, device)] = step
        while waiting:
            for done in ray.wait(list(waiting), timeout=1)[0]:
                step = waiting.pop(done)
                try:
                    state, message = ray.get(done)
                    ends[step.fingerprint] = End(State(state), message)
                except ray.exceptions.RayError as lost:
                    ends[step.fingerprint] = End(State.FAILED, redacted(f"the cluster lost it: {lost}"))
                watch.on_end(step, ends[step.fingerprint])
            if stop() and not flag.exists():
                write_text(flag, "")
    flag.unlink(missing_ok=True)
    return ends


def _levels(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Steps that build on none of the others, then those that build on them, and so on."""
    left = list(steps)
    while left:
        waiting = {step.fingerprint for step in left}
        level = [step for step in left if step.first not in waiting]
        yield level
        left = [step for step in left if step not in level]


def _in_this_process(
    study: Path, step: Step, device: str, watch: Watch, stop: Callable[[], bool], dataset: PersonDataset | None
) -> End:
    end = run_step(study, step, device, Updates(partial(watch.on_update, step)), stop, dataset)
    if device == "cuda":
        torch.cuda.empty_cache()
    return end


def _fill(study: Path, steps: Sequence[Step], slots: Sequence[Slot], watch: Watch, stop: Callable[[], bool]) -> dict[str, End]:
    """Keeps every slot busy, one thread each that waits for a process."""
    free: SimpleQueue[Slot] = SimpleQueue()
    for slot in slots:
        free.put(slot)

    def attend(step: Step) -> End | None:
        if stop():
            return None
        slot = free.get()
        try:
            watch.on_start(step)
            end = _supervised(study, step, slot, watch, stop)
            watch.on_end(step, end)
        finally:
            free.put(slot)
        return end

    with ThreadPoolExecutor(len(slots)) as threads:
        futures = {threads.submit(attend, step): step.fingerprint for step in steps}
        pending = set(futures)
        while pending:  # in short waits, so that a signal reaches this thread
            _, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
    return {name: end for future, name in futures.items() if (end := future.result()) is not None}


def _supervised(study: Path, step: Step, slot: Slot, watch: Watch, stop: Callable[[], bool]) -> End:
    """A step in a process of its own, which tells its progress in JSON lines; a wish to stop is passed on to it."""
    if (step.folder(study) / RESULT).exists():
        return End(State.DONE)
    folder = write_step(study, step)
    command = [sys.executable, "-m", WORKER, str(study), step.fingerprint, slot.device]
    last = End(State.FAILED, "")
    with (folder / "worker.log").open("w") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **slot.environment}, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        assert process.stdout is not None
        over = threading.Event()
        passing = threading.Thread(target=_pass_on, args=(process, stop, over))
        passing.start()
        try:
            for line in process.stdout:
                told = _told(line)
                if "state" in told:
                    last = End(State(str(told["state"])), str(told["error"]))
                elif "done" in told:
                    watch.on_update(step, int(told["done"]), int(told["total"]))
            process.wait()
        finally:
            over.set()
            passing.join()
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
    if last == End(State.FAILED, "") and stop():  # before it could listen
        return End(State.STOPPED)
    if last == End(State.FAILED, ""):
        last = End(State.FAILED, f"its process ended with code {process.returncode}; {folder / 'worker.log'} may say why")
        write_text(folder / ERROR, json.dumps({"error": last.error, "kind": "process", "traceback": ""}, indent=2) + "\n")
    return last


def _pass_on(process: "subprocess.Popen[str]", stop: Callable[[], bool], over: threading.Event) -> None:
    while not over.wait(0.1):
        if stop():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            return


def _told(line: str) -> Mapping[str, str | int]:
    try:
        told = json.loads(line)
    except ValueError:  # a library that prints
        return {}
    return told if isinstance(told, dict) else {}
