"""Records of the rows and seeds requested from a table; reports read them.

STUDY/plans/TABLE-KEY.json   one table on one data set, from one start model, with one set of changes (KEY depends on these)
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tbps.errors import CheckpointError
from tbps.storage import write_text
from tbps.study.work.operations import SplitCounts


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """Rows and seeds requested from one table.

    `counts`: counts of the data set by split. `backbone`: name of the model in the paper, None for others. `rows`: row -> seed ->
    fingerprint of its step. `refused`: row -> why it cannot be run.
    """

    table: str
    data: str
    data_fingerprint: str
    counts: Mapping[str, SplitCounts]
    start: str
    start_fingerprint: str
    backbone: str | None
    changes: Mapping[str, str]
    rows: Mapping[str, Mapping[int, str]]
    refused: Mapping[str, str]

    def file(self, study: Path) -> Path:
        """Path of the record's file; it depends on table, data set, start model and changes."""
        what = [self.data_fingerprint, self.start_fingerprint, dict(sorted(self.changes.items()))]
        key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]
        return study / "plans" / f"{self.table}-{key}.json"

    def save(self, study: Path) -> Path:
        """Add rows, seeds and refusals to the file in the study's folder, and return the file."""
        file = self.file(study)
        record = self._after(PlanRecord.load(file)) if file.exists() else self
        content = {
            "table": record.table,
            "data": {
                "name": record.data,
                "fingerprint": record.data_fingerprint,
                "counts": {name: [c.identities, c.images, c.captions] for name, c in record.counts.items()},
            },
            "start": {"name": record.start, "fingerprint": record.start_fingerprint, "backbone": record.backbone},
            "changes": dict(record.changes),
            "rows": {row: {str(seed): step for seed, step in steps.items()} for row, steps in record.rows.items()},
            "refused": dict(record.refused),
        }
        write_text(file, json.dumps(content, indent=2) + "\n")
        return file

    @staticmethod
    def load(file: Path) -> "PlanRecord":
        """Read a record. Raises CheckpointError for a damaged file."""
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            data, start = content["data"], content["start"]
            return PlanRecord(
                table=content["table"],
                data=data["name"],
                data_fingerprint=data["fingerprint"],
                counts={name: SplitCounts(*counts) for name, counts in data["counts"].items()},
                start=start["name"],
                start_fingerprint=start["fingerprint"],
                backbone=start["backbone"],
                changes=content["changes"],
                rows={row: {int(seed): step for seed, step in steps.items()} for row, steps in content["rows"].items()},
                refused=content.get("refused", {}),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{file} is damaged ({error}); delete it and run the study's command again") from error

    def _after(self, earlier: "PlanRecord") -> "PlanRecord":
        """Copy this record, with the rows, seeds and refusals of an earlier one before its own."""
        rows = {row: dict(steps) for row, steps in earlier.rows.items()}
        for row, steps in self.rows.items():
            rows[row] = rows.get(row, {}) | dict(steps)
        return replace(self, rows=rows, refused={**earlier.refused, **self.refused})
