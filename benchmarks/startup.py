"""How long a command takes to start: `python benchmarks/startup.py [--runs 5] [--before OTHER/src]`.

Fresh processes take turns: an interpreter that does nothing, `import tbps`, `tbps --help`, and `tbps search` on a small gallery of
the bundled model. One round beforehand does not count, so this is a second start: bytecode is compiled, files are in the page
cache. CPU time is what other work on the machine changes least. `--before`: the `src` folder of another version, which takes turns
with this one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import RUNS, Row, publish, ratios

import tbps
from tbps.data.mannequins.writing import SplitSize, write_mannequins

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "mannequin-tiny"
NOTHING = "python, nothing imported"


def started(arguments: Sequence[str], source: Path) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a fresh interpreter that finds `tbps` in `source`."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(source)}
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with code {process.returncode}")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime


def starts(gallery: Path, sources: Sequence[Path], runs: int) -> dict[tuple[str, Path], list[tuple[float, float]]]:
    """Wall-clock and CPU seconds of every start with every version of the sources, in turns."""
    commands = {
        NOTHING: ["-c", "pass"],
        "import tbps": ["-c", "import tbps"],
        "tbps --help": ["-m", "tbps.cli", "--help"],
        "tbps search": ["-m", "tbps.cli", "search", str(gallery), "a woman in a red coat"],
    }
    found: dict[tuple[str, Path], list[tuple[float, float]]] = {(name, source): [] for name in commands for source in sources}
    for run in range(1 + runs):
        for (name, source), spent in found.items():
            measured = started(commands[name], source)
            if run:
                spent.append(measured)
    return found


def main(runs: int, before: Path | None) -> None:
    here = ROOT / "src"
    with tempfile.TemporaryDirectory() as temporary:
        people, gallery = Path(temporary) / "people", Path(temporary) / "gallery"
        write_mannequins(people, {"test": SplitSize(8, 4)}, seed=3, workers=1)
        tbps.Gallery.open(gallery, tbps.load(MODEL)).add(people)
        found = starts(gallery, [here, *([before.resolve()] if before else [])], runs)
    rows = []
    for (name, source), spent in found.items():
        if name == NOTHING and source != here:
            continue
        which = name if source == here else f"{name}, before"
        for unit, each in zip(("s", "s of CPU"), zip(*spent, strict=True), strict=True):
            rows.append(Row(which, unit, each))
            if source != here:
                ours = found[name, here]
                rows.append(ratios(f"{name}, before / now, {unit}", [pair[unit != "s"] for pair in ours], each))
    publish("startup", rows, {"runs": runs, "threads": os.environ.get("OMP_NUM_THREADS", "default")})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--before", type=Path, help="the src folder of another version")
    main(**vars(parser.parse_args()))
