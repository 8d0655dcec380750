"""All CPU benchmarks in one run, with one JSON file and one table: `python benchmarks/everything.py [--toy]` (`make bench`)."""

import argparse
import sys
import time
from datetime import datetime
from pathlib import Path

import floor
import mannequins
import pipeline
import scaling
import search
import serving
import side_by_side
import startup
import training
from measuring import RUNS
from memory import TooLittleMemory, require, within_limit
from results import FOLDER, Measure, keep

ALL: dict[str, Measure] = {
    "floor": floor.measure,
    "side by side": side_by_side.measure,
    "training": training.measure,
    "pipeline": pipeline.measure,
    "mannequins": mannequins.measure,
    "startup": startup.measure,
    "search": search.measure,
    "serving": serving.measure,
    "scaling": scaling.measure,
}


def main(toy: bool, runs: int, folder: Path) -> Path:
    """Runs all benchmarks and returns the JSON file."""
    started, begun, found = datetime.now(), time.perf_counter(), []
    for name in ALL:  # missing memory is reported before hours of measuring, not after
        require(name, toy)
    for number, (name, measure) in enumerate(ALL.items(), start=1):
        print(f"[{number}/{len(ALL)}, {time.perf_counter() - begun:.0f} s] {name}", flush=True)
        with within_limit(name, toy):
            found.append(measure(toy, runs))
    return keep(found, toy, started, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that the benchmark runs")
    parser.add_argument("--runs", type=int, default=RUNS, help="measured runs of each quantity")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder for the JSON file and the table")
    try:
        file = main(**vars(parser.parse_args()))
    except TooLittleMemory as error:
        sys.exit(f"error: {error}")
    print(f"\n{file.with_suffix('.md').read_text(encoding='utf-8')}\n{file}")
