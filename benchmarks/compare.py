"""Comparison of two runs: `python benchmarks/compare.py A.json B.json`.

Prints the ratio B / A of every quantity in both files, and whether the change exceeds the spread, which means that every run of one
file is above every run of the other.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results import describe, name, read


@dataclass(frozen=True, slots=True)
class Change:
    """Change of one quantity. `ratio`: B / A of the medians; `least`, `most`: smallest and largest B / A of any two runs."""

    benchmark: str
    what: str
    unit: str
    ratio: float
    least: float
    most: float

    @property
    def exceeds(self) -> bool:
        """Whether the ranges of the runs do not overlap."""
        return self.least > 1 or self.most < 1


def changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    """Returns the changes of the quantities in both records, in B's order; quantities with a run of 0 are left out."""
    before, found = _rows(a), []
    for key, row in _rows(b).items():
        old = before.get(key)
        if old is not None and min(old["least"], row["least"]) > 0:
            least, most = row["least"] / old["most"], row["most"] / old["least"]
            found.append(Change(*key, row["median"] / old["median"], least, most))
    return found


def report(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Formats the comparison as Markdown."""
    lines = [f"A: {describe(a)}", f"B: {describe(b)}", ""]
    if {key: a["machine"][key] for key in ("cpu", "cores", "gpu")} != {key: b["machine"][key] for key in ("cpu", "cores", "gpu")}:
        lines += ["Different machines: the ratios compare machines, not commits.", ""]
    lines += ["| benchmark | what | unit | B / A | least | most | exceeds the spread |", "|---|---|---|---:|---:|---:|---|"]
    for c in changes(a, b):
        mark = "yes" if c.exceeds else ""
        lines.append(f"| {c.benchmark} | {c.what} | {c.unit} | {c.ratio:.3f} | {c.least:.3f} | {c.most:.3f} | {mark} |")
    for letter, one, other in (("A", a, b), ("B", b, a)):
        lonely = [f"{key[0]}: {key[1]} ({key[2]})" for key in _rows(one) if key not in _rows(other)]
        if lonely:
            lines += ["", f"Only in {letter}: {'; '.join(lonely)}"]
    return "\n".join(lines)


def _rows(kept: Mapping[str, Any]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    return {(b["name"], name(row), row["unit"]): row for b in kept["benchmarks"] for row in b["rows"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    given = parser.parse_args()
    print(report(read(given.a), read(given.b)))
