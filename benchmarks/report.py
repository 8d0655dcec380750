"""Inserts measured figures into the documents: `python benchmarks/report.py build/bench/2026-11-25-120000.json [MORE.json ...]`.

The text between `<!-- begin NAME -->` and `<!-- end NAME -->` in docs/benchmarks.md and docs/performance.md is replaced by the
table of the benchmark NAME, with machine and commit. If several files hold that benchmark, the last is used. Other sections stay.
The plot docs/images/scaling.png is redrawn where a file contains "scaling".
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import scaling
from results import ROOT, describe, read, table

from tbps.storage import write_text

DOCUMENTS = ("docs/benchmarks.md", "docs/performance.md")
SECTION = re.compile(r"(<!-- begin ([\w ]+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def sections(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the text of each benchmark's section. Raises ValueError for toy sizes, which belong in no document."""
    found = {}
    for kept in records:
        if kept["toy"]:
            raise ValueError(f"the run of {kept['started']} used toy sizes, so its numbers do not belong in documents")
        for benchmark in kept["benchmarks"]:
            found[benchmark["name"]] = f"{describe(kept)}\n\n{table(benchmark)}"
    return found


def filled(document: str, texts: Mapping[str, str]) -> str:
    """Replaces the sections of a document for which `texts` has a table."""

    def fill(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        return f"{begin}\n{texts[name]}\n{end}" if name in texts else match.group()

    return SECTION.sub(fill, document)


def main(files: Sequence[Path], root: Path = ROOT) -> list[Path]:
    """Updates the documents below `root` and returns the changed files."""
    records = [read(file) for file in files]
    texts, changed = sections(records), []
    for name in DOCUMENTS:
        before = (root / name).read_text(encoding="utf-8")
        after = filled(before, texts)
        if after != before:
            write_text(root / name, after)
            changed.append(root / name)
    for benchmark in (b for kept in records for b in kept["benchmarks"] if b["name"] == "scaling"):
        changed.append(root / "docs" / "images" / "scaling.png")
        scaling.draw(benchmark, changed[-1])
    return changed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    for path in main(parser.parse_args().files):
        print(path)
