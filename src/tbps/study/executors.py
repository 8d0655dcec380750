"""Executors of a study's steps: this process, several processes (one per GPU), or a Ray cluster. The results are the same.

A step works in its folder, so every process that runs steps needs the study's folder, the data and the model at the same paths.
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
from tbps.study.result import RESULT
from tbps.study.step import ERROR, End, Step, StepState, run_step, write_step
from tbps.study.work.observer import ProgressObserver
from tbps.study.worker import STOP, run_recorded
from tbps.study.worker import __name__ as WORKER


class StudyObserver(Protocol):
    """Receives the progress of a study's steps. With slots, calls come from several threads."""

    def on_start(self, step: Step) -> None: ...
    def on_update(self, step: Step, done: int, total: int) -> None: ...
    def on_end(self, step: Step, end: End) -> None: ...


@dataclass(frozen=True, slots=True)
class Slot:
    """Device of a process, and its additional environment variables."""

    device: str
    environment: Mapping[str, str]


def gpu_slots() -> list[Slot]:
    """Make one slot per GPU of this machine, or per GPU listed in CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = [name for name in visible if name] or [str(number) for number in range(torch.cuda.device_count())]
    return [Slot("cuda", {"CUDA_VISIBLE_DEVICES": name}) for name in names[: torch.cuda.device_count()]]


def cpu_slots(count: int) -> list[Slot]:
    """Make slots for `count` processes that share the CPU cores equally, or use OMP_NUM_THREADS threads each if that is set."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, available_cores() // count))
    return [Slot("cpu", {"OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""})] * count


def run_here(
    study: Path,
    steps: Sequence[Step],
    device: str,
    observer: StudyObserver,
    stop: Callable[[], bool],
    dataset: PersonDataset | None = None,
) -> dict[str, End]:
    """Run the steps one after another in this process; measured steps (`Work.alone`) get a process of their own.

    Returns how each step ended, by fingerprint. Steps that had not begun when `stop` became true are absent.
    """
    ends: dict[str, End] = {}
    for step in (step for level in _levels(steps) for step in level):
        if stop():
            break
        observer.on_start(step)
        if step.work.alone:
            end = _supervised(study, step, Slot(device, {}), observer, stop)
        else:
            end = _in_this_process(study, step, device, observer, stop, dataset)
        ends[step.fingerprint] = end
        observer.on_end(step, end)
    return ends


def run_in_slots(
    study: Path, steps: Sequence[Step], slots: Sequence[Slot], observer: StudyObserver, stop: Callable[[], bool]
) -> dict[str, End]:
    """Run as many steps at a time as there are slots, each in its own process. On a CPU, measured steps run last, one at a time."""
    ends: dict[str, End] = {}
    for level in _levels(steps):
        alone = [step for step in level if step.work.alone and slots[0].device == "cpu"]
        for part, used in (([step for step in level if step not in alone], slots), (alone, slots[:1])):
            ends |= _fill(study, part, used, observer, stop)
    return ends


def run_on_ray(
    study: Path, steps: Sequence[Step], device: str, observer: StudyObserver, stop: Callable[[], bool]
) -> dict[str, End]:
    """Run the steps on the Ray cluster of RAY_ADDRESS, with one GPU or one core per step.

    Raises MissingDependencyError without the package `ray`.
    """
    ray = needed("ray", "--on ray", "ray")
    ray.init(address="auto", ignore_reinit_error=True, log_to_driver=False)
    resources = {"num_cpus": 1, "num_gpus": 1 if device == "cuda" else 0}
    remote = ray.remote(**resources, max_retries=0, max_calls=1)(
        run_recorded
    )  # one process per step, because peak memory is measured per process
    flag = study / STOP
    flag.unlink(missing_ok=True)
    ends: dict[str, End] = {}
    for level in _levels(steps):
        waiting = {}
        for step in [] if stop() else level:
            write_step(study, step)
            observer.on_start(step)
            waiting[remote.remote(str(study.resolve()), step.fingerprint, device)] = step
        while waiting:
            for done in ray.wait(list(waiting), timeout=1)[0]:
                step = waiting.pop(done)
                try:
                    state, message = ray.get(done)
                    ends[step.fingerprint] = End(StepState(state), message)
                except ray.exceptions.RayError as lost:
                    ends[step.fingerprint] = End(StepState.FAILED, redacted(f"the Ray cluster lost the step: {lost}"))
                observer.on_end(step, ends[step.fingerprint])
            if stop() and not flag.exists():
                write_text(flag, "")
    flag.unlink(missing_ok=True)
    return ends


def _levels(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Group the steps by dependency: first those that build on no other, then those that build on the first, and so on."""
    left = list(steps)
    while left:
        waiting = {step.fingerprint for step in left}
        level = [step for step in left if step.first not in waiting]
        yield level
        left = [step for step in left if step not in level]


def _in_this_process(
    study: Path, step: Step, device: str, observer: StudyObserver, stop: Callable[[], bool], dataset: PersonDataset | None
) -> End:
    end = run_step(study, step, device, ProgressObserver(partial(observer.on_update, step)), stop, dataset)
    if device == "cuda":
        torch.cuda.empty_cache()
    return end


def _fill(
    study: Path, steps: Sequence[Step], slots: Sequence[Slot], observer: StudyObserver, stop: Callable[[], bool]
) -> dict[str, End]:
    """Keep every slot busy; one thread per slot waits for its process."""
    free: SimpleQueue[Slot] = SimpleQueue()
    for slot in slots:
        free.put(slot)

    def attend(step: Step) -> End | None:
        if stop():
            return None
        slot = free.get()
        try:
            observer.on_start(step)
            end = _supervised(study, step, slot, observer, stop)
            observer.on_end(step, end)
        finally:
            free.put(slot)
        return end

    with ThreadPoolExecutor(len(slots)) as threads:
        futures = {threads.submit(attend, step): step.fingerprint for step in steps}
        pending = set(futures)
        while pending:  # short waits, so that this thread handles signals
            _, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
    return {name: end for future, name in futures.items() if (end := future.result()) is not None}


def _supervised(study: Path, step: Step, slot: Slot, observer: StudyObserver, stop: Callable[[], bool]) -> End:
    """Run a step in its own process, which reports progress as JSON lines; when `stop` becomes true, interrupt the process."""
    if (step.folder(study) / RESULT).exists():
        return End(StepState.DONE)
    folder = write_step(study, step)
    command = [sys.executable, "-m", WORKER, str(study), step.fingerprint, slot.device]
    last = End(StepState.FAILED, "")
    with (folder / "worker.log").open("w") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **slot.environment}, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        assert process.stdout is not None
        over = threading.Event()
        interrupting = threading.Thread(target=_interrupt, args=(process, stop, over))
        interrupting.start()
        try:
            for line in process.stdout:
                message = _message(line)
                if "state" in message:
                    last = End(StepState(str(message["state"])), str(message["error"]))
                elif "done" in message:
                    observer.on_update(step, int(message["done"]), int(message["total"]))
            process.wait()
        finally:
            over.set()
            interrupting.join()
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
    if last == End(StepState.FAILED, "") and stop():  # SIGINT arrived before the process had installed its handler
        return End(StepState.STOPPED)
    if last == End(StepState.FAILED, ""):
        last = End(StepState.FAILED, f"its process ended with code {process.returncode}; see {folder / 'worker.log'}")
        write_text(folder / ERROR, json.dumps({"error": last.error, "kind": "process", "traceback": ""}, indent=2) + "\n")
    return last


def _interrupt(process: "subprocess.Popen[str]", stop: Callable[[], bool], over: threading.Event) -> None:
    """Send SIGINT to the process once `stop` is true, unless `over` is set before."""
    while not over.wait(0.1):
        if stop():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            return


def _message(line: str) -> Mapping[str, str | int]:
    """Parse a message of the worker; empty for a line that a library printed."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
