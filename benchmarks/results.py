"""Records of benchmark runs: a JSON file with machine, commit, versions and every measured value, and a Markdown table.

{"format": "tbps-benchmarks 1", "started": ..., "toy": ..., "machine": {...}, "commit": ..., "dirty": ..., "versions": {...},
 "benchmarks": [{"name": ..., "conditions": {...}, "rows": [{"what", "unit", "median", "least", "most", "runs"}, ...]}, ...]}
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from measuring import RUNS, Measurement
from memory import TooLittleMemory, within_limit

from tbps.storage import write_text

FORMAT = "tbps-benchmarks 1"
PACKAGES = ("numpy", "pillow", "tokenizers", "torch", "transformers")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16")
ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "bench"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Measurements of one benchmark, and their conditions (sizes, threads)."""

    name: str
    rows: Sequence[Measurement]
    conditions: Mapping[str, object]


Measure = Callable[[bool, int], Benchmark]
"""measure(toy, runs); `toy`: sizes that only show that the benchmark runs."""


def record(benchmarks: Sequence[Benchmark], toy: bool, started: datetime) -> dict[str, Any]:
    """Returns the content of the file."""
    return {
        "format": FORMAT,
        "started": started.isoformat(timespec="seconds"),
        "toy": toy,
        "machine": machine(),
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain")),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "benchmarks": [
            {"name": b.name, "conditions": dict(b.conditions), "rows": [as_dict(row) for row in b.rows]} for b in benchmarks
        ],
    }


def as_dict(row: Measurement) -> dict[str, Any]:
    """Converts a measurement for JSON."""
    runs = [float(f"{run:.6g}") for run in row.runs]
    found = {"what": row.what, "unit": row.unit, "median": row.median, "least": row.least, "most": row.most, "runs": runs}
    return found if row.at is None else {"at": row.at, **found}


def keep(benchmarks: Sequence[Benchmark], toy: bool, started: datetime, folder: Path = FOLDER, kind: str = "") -> Path:
    """Writes both files, named by date and time, atomically; returns the path of the JSON file."""
    kept = record(benchmarks, toy, started)
    file = folder / f"{started:%Y-%m-%d-%H%M%S}{'-' * bool(kind)}{kind}{'-toy' * toy}.json"
    write_text(file, json.dumps(kept, indent=1) + "\n")
    write_text(file.with_suffix(".md"), report(kept))
    return file


def read(file: Path) -> dict[str, Any]:
    """Reads a file that `keep` wrote. Raises ValueError for another file."""
    try:
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(kept, dict) or kept.get("format") != FORMAT:
        raise ValueError(f"{file} was not written by these benchmarks (format {FORMAT!r} is missing)")
    return kept


def report(kept: Mapping[str, Any]) -> str:
    """Formats a whole record as Markdown."""
    parts = [f"{describe(kept)}\n"]
    parts += [f"## {b['name']}\n\n{table(b)}" for b in kept["benchmarks"]]
    return "\n".join(parts)


def describe(kept: Mapping[str, Any]) -> str:
    """Describes machine, commit and versions in one line."""
    m, versions = kept["machine"], ", ".join(f"{package} {number}" for package, number in kept["versions"].items())
    commit = kept["commit"][:7] + (" with changes" if kept["dirty"] else "")
    flags = f" ({', '.join(m['flags'])})" if m["flags"] else ""
    gpu = f" and {m['gpu']}" if m["gpu"] else ""
    toy = " Toy sizes: the numbers mean nothing." if kept["toy"] else ""
    cores = f"{m['cores']} cores of {m['cpu']}{flags}{gpu}, {m['memory_gb']} GB"
    return f"{kept['started'][:10]}, commit {commit}: {cores}, {m['system']}; {versions}.{toy}"


def table(benchmark: Mapping[str, Any]) -> str:
    """Formats the measurements of one benchmark as a table."""
    lines = ["| what | median | least | most | unit |", "|---|---:|---:|---:|---|"]
    for row in benchmark["rows"]:
        numbers = " | ".join(f"{row[key]:,.4g}" for key in ("median", "least", "most"))
        lines.append(f"| {name(row)} | {numbers} | {row['unit']} |")
    conditions = ", ".join(f"{key} {value}" for key, value in benchmark["conditions"].items())
    return "\n".join(lines) + f"\n\nWith {conditions}.\n"


def name(row: Mapping[str, Any]) -> str:
    """Returns the name of a row's quantity, with the size if it has one."""
    return f"{row['what']}, {row['at']:,}" if "at" in row else str(row["what"])


def run_alone(measure: Measure, description: str | None) -> None:
    """Command line of a single benchmark: measures, prints the table, writes the JSON and Markdown files."""
    import argparse

    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to check that the benchmark runs")
    parser.add_argument("--runs", type=int, default=RUNS, help="measured runs of each quantity")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder for the JSON file and the table")
    given = parser.parse_args()
    started = datetime.now()
    try:
        with within_limit(Path(sys.argv[0]).stem.replace("_", " "), given.toy):
            benchmark = measure(given.toy, given.runs)
    except TooLittleMemory as error:
        sys.exit(f"error: {error}")
    file = keep([benchmark], given.toy, started, given.folder, benchmark.name.replace(" ", "-"))
    print(f"\n{file.with_suffix('.md').read_text(encoding='utf-8')}\n{file}")


def machine() -> dict[str, Any]:
    """Describes what determines the speed of this machine."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "flags": [flag for flag in FLAGS if flag in flags],
        "system": platform.platform(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": round(os.getloadavg()[0], 2),
    }


def git(*arguments: str) -> str:
    """Returns the output of a git command in this working tree; empty where it is not one."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else ""
