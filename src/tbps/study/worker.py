"""Worker process that runs one step: `python -m tbps.study.worker STUDY FINGERPRINT DEVICE`.

It reports its progress as JSON lines on standard output: {"done": updates, "total": updates}, and at the end
{"state": ..., "error": ...}. It stops after the current update on SIGINT, when the file STUDY/stop appears, or when its parent
process has ended.
"""

import json
import os
import signal
import sys
from pathlib import Path

from tbps.study.step import read_step, run_step
from tbps.study.work.observer import ProgressObserver

STOP = "stop"
"""File in the study's folder that makes its workers stop."""


def run_recorded(study: str, fingerprint: str, device: str) -> tuple[str, str]:
    """Run the step of this fingerprint in a Ray worker; returns (state, error)."""
    flag, step = Path(study) / STOP, read_step(Path(study) / "steps" / fingerprint)
    end = run_step(Path(study), step, device, ProgressObserver(lambda *_: None), flag.exists)
    return end.state.value, end.error


def main(study: str, fingerprint: str, device: str) -> None:
    """Run the step and report progress and final state on standard output."""
    parent, asked = os.getppid(), []
    signal.signal(signal.SIGINT, lambda *_: asked.append(True))

    def stop() -> bool:
        return bool(asked) or os.getppid() != parent or (Path(study) / STOP).exists()

    def report(**fields: object) -> None:
        try:
            print(json.dumps(fields), flush=True)
        except BrokenPipeError:  # the parent process has ended, which makes `stop` true
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until this process ends

    step = read_step(Path(study) / "steps" / fingerprint)
    end = run_step(Path(study), step, device, ProgressObserver(lambda done, total: report(done=done, total=total)), stop)
    report(state=end.state.value, error=end.error)


if __name__ == "__main__":
    main(*sys.argv[1:])
