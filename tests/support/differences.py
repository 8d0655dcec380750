"""Differences that an indexing run reports, and the hits of a gallery by path."""

import json
from dataclasses import replace
from pathlib import Path

from tbps.gallery.gallery import Gallery
from tbps.gallery.ingest.report import IngestReport
from tbps.gallery.store.hit import Hit


def hits_by_path(gallery: Gallery) -> dict[str, Hit]:
    """Hits by path; the second and later rows of a path get a number appended to the path."""
    found: dict[str, Hit] = {}
    for hit in sorted(gallery.search("someone", 999), key=lambda hit: hit.id):
        name = str(hit.path or hit.source)
        found[name if name not in found else f"{name} {len(found)}"] = replace(hit, rank=0)
    return found


def differences(report: IngestReport) -> dict[str, list[str]]:
    """Sorted file names by kind of difference; kinds without files are omitted."""
    kinds = ("changed", "moved", "corrected", "gone")
    return {kind: sorted(name for name, _ in getattr(report, kind)) for kind in kinds if getattr(report, kind)}


def write_metadata(folder: Path, *lines: dict[str, object]) -> None:
    """Writes the metadata.jsonl of a folder."""
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
