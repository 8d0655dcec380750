"""Results of finished steps in `result.json`; a step is done if this file exists."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tbps.errors import CheckpointError
from tbps.storage import write_text

RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of a step, with its inputs.

    `step`: its fingerprint. `images`: number of images in the data set. `first`: fingerprint of the step that it built on, None if
    it started from the study's start model. `split`: name of the split that was scored, with the numbers of `queries` and `gallery`
    images. `values` are the same on every machine; `measured` (seconds, bytes), `device`, `torch` (its version) and `finished_at`
    are not.
    """

    step: str
    kind: str
    seed: int
    data: str
    data_fingerprint: str
    images: int
    start: str
    start_fingerprint: str
    first: str | None
    split: str
    queries: int
    gallery: int
    values: Mapping[str, float | None]
    measured: Mapping[str, float]
    device: str
    torch: str
    finished_at: str

    @property
    def circumstances(self) -> dict[str, float | str]:
        """Everything that depends on the machine and the time of the run, by the names in result.json."""
        return {**self.measured, "device": self.device, "torch": self.torch, "finished_at": self.finished_at}

    def number(self, name: str) -> float | None:
        """A value or a measurement by its name; None if there is none."""
        return self.measured[name] if name in self.measured else self.values.get(name)

    def save(self, folder: Path) -> None:
        """Write result.json into the step's folder, atomically."""
        content = {
            "step": self.step,
            "kind": self.kind,
            "seed": self.seed,
            "data": {"name": self.data, "fingerprint": self.data_fingerprint, "images": self.images},
            "start": {"name": self.start, "fingerprint": self.start_fingerprint, "first": self.first},
            "split": {"name": self.split, "queries": self.queries, "gallery": self.gallery},
            "values": dict(self.values),
            "measured": self.circumstances,
        }
        write_text(folder / RESULT, json.dumps(content, indent=2) + "\n")


def read_result(folder: Path) -> StepResult | None:
    """Read the result of a step; None if it is not done. Raises CheckpointError for a damaged file."""
    file = folder / RESULT
    if not file.exists():
        return None
    try:
        return _parsed(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); delete it and run the study's command again") from error


def _parsed(content: Mapping[str, Any]) -> StepResult:
    data, start, split, measured = (content[part] for part in ("data", "start", "split", "measured"))
    about = ("device", "torch", "finished_at")
    return StepResult(
        step=content["step"],
        kind=content["kind"],
        seed=content["seed"],
        data=data["name"],
        data_fingerprint=data["fingerprint"],
        images=data["images"],
        start=start["name"],
        start_fingerprint=start["fingerprint"],
        first=start["first"],
        split=split["name"],
        queries=split["queries"],
        gallery=split["gallery"],
        values=content["values"],
        measured={name: value for name, value in measured.items() if name not in about},
        device=measured["device"],
        torch=measured["torch"],
        finished_at=measured["finished_at"],
    )
