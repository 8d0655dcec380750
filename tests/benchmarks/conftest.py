"""Puts the folder of the benchmarks on the import path: they are scripts that import each other by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
