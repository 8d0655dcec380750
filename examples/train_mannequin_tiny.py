"""Trains `models/mannequin-tiny` from scratch: draws the data, trains, evaluates on 1,000 unseen identities, writes the model
folder.

    python examples/train_mannequin_tiny.py [--work runs/mannequin-tiny] [--out models/mannequin-tiny]

The same command resumes an interrupted run from the last checkpoint. DATA_SEED determines the data, the recipe's seed the initial
weights and batches; trained weights may still differ between machines, because float32 sums do.

Cost: about two hours on two cores. Result: Rank-1 of about 74.5 % on the test split; all figures: models/mannequin-tiny/README.md.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

DATA_SEED = 20261
TRAIN, VAL, TEST, IMAGES = 30_000, 250, 1_000, 4


def run(*command: str) -> None:
    """Prints and runs a `tbps` command."""
    print("$ tbps", *command, flush=True)
    subprocess.run([str(Path(sys.executable).with_name("tbps")), *command], check=True)


def train(recipe: str, data: Path, out: Path, *changes: str, model: Path | None = None) -> None:
    """Runs or resumes a recipe."""
    command = ["train", recipe, "--data", "folder", "--root", str(data), "--out", str(out)]
    command += ["--model", str(model)] if model else []
    command += ["--resume"] if (out / "settings.json").exists() else []
    run(*command, *(part for change in changes for part in ("--set", change)))


def main() -> None:
    """Draws the data, trains, evaluates and writes the model folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/mannequin-tiny"))
    parser.add_argument("--out", type=Path, default=Path("models/mannequin-tiny"))
    parser.add_argument("--identities", type=int, default=TRAIN, help="training identities")
    parser.add_argument("--start", action="append", default=[], help="a setting of the first half, as in `tbps train --set`")
    parser.add_argument("--fine", action="append", default=[], help="a setting of the second half")
    given = parser.parse_args()
    data, start, fine = given.work / "data", given.work / "start", given.work / "fine"
    sizes = ["--train", str(given.identities), "--val", str(VAL), "--test", str(TEST), "--images", str(IMAGES)]
    run("data", "mannequins", str(data), *sizes, "--seed", str(DATA_SEED))
    train("mannequin_start", data, start, *given.start)
    train("mannequin_tiny", data, fine, *given.fine, model=start / "best")
    import tbps

    tbps.load(fine / "best").save(given.out, half=True)
    run("evaluate", str(given.out), "--data", "folder", "--root", str(data), "--split", "test")
    report = json.loads((fine / "report.json").read_text())
    print(f"second half: best epoch {report['best_epoch']['epoch']}, {report['updates']:,} updates; model in {given.out}")


if __name__ == "__main__":
    main()
