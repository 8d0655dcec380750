"""Start-up time of commands: `python benchmarks/startup.py [--toy]`.

Starts new processes in turn: an interpreter without a program, `import tbps`, `tbps --help`, and `tbps search` on a small gallery
of the bundled model. The first round is not counted; it compiles the bytecode and fills the page cache. CPU time depends less than
wall-clock time on other load of the machine.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import Measurement
from results import Benchmark, run_alone

import tbps
from tbps.data import SplitSize, write_mannequins

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "mannequin-tiny"


def started(arguments: Sequence[str]) -> tuple[float, float]:
    """Returns wall-clock and CPU seconds of a new interpreter."""
    begun = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with code {process.returncode}")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime


def measure(toy: bool, runs: int) -> Benchmark:
    with tempfile.TemporaryDirectory() as temporary:
        people, gallery = Path(temporary) / "people", Path(temporary) / "gallery"
        write_mannequins(people, {"test": SplitSize(2 if toy else 8, 4)}, seed=3, workers=1)
        tbps.Gallery.open(gallery, tbps.load(MODEL)).add(people)
        commands = {
            "python, nothing imported": ["-c", "pass"],
            "import tbps": ["-c", "import tbps"],
            "tbps --help": ["-m", "tbps.cli", "--help"],
            "tbps search": ["-m", "tbps.cli", "search", str(gallery), "a woman in a red coat"],
        }
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for run in range(1 + runs):
            for name, arguments in commands.items():
                measured = started(arguments)
                if run:
                    spent[name].append(measured)
    rows = [
        Measurement(name, unit, each)
        for name, pairs in spent.items()
        for unit, each in zip(("s", "s of CPU"), zip(*pairs, strict=True), strict=True)
    ]
    return Benchmark("startup", rows, {"gallery": "8 images" if toy else "32 images"})


if __name__ == "__main__":
    run_alone(measure, __doc__)
