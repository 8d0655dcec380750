"""`--profile` writes a trace with the phases of an update, prints the costs, and begins no run."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tbps.cli import app
from tbps.data.readers.folder import read
from tbps.model.bundle import load
from tbps.study.recipes import simplified_tbps_clip
from tbps.training.observer import Silent
from tbps.training.profiling import PHASES, profile_updates


def test_the_command_prints_phases_and_ten_operations(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["train", "simplified_tbps_clip", "--data", "folder", "--root", str(flags), "--model", str(tiny_model_folder)]
    done = CliRunner().invoke(app, [*command, "--out", str(out), "--profile", "--set", "batch_size=4"])
    assert done.exit_code == 0, done.output
    assert [path.name for path in out.iterdir()] == ["trace.json"]
    for phase in PHASES:
        assert f" {phase} " in done.stdout
    operations = done.stdout.partition("costliest operations")[2].splitlines()
    rows = [cells for line in operations if len(cells := line.strip("│ ").split("│")) == 4 and cells[0].strip()]
    assert len(rows) == 10 and all(float(share) >= 0 for *_, share in rows)


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_costs_agree_with_the_trace(micro_batch: int | None, flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    settings = simplified_tbps_clip().override({"image": {}, "batch_size": 6, "micro_batch": micro_batch})
    found = profile_updates(settings, load(tiny_model_folder), read(flags), tmp_path / "trace.json", Silent())
    events = json.loads(found.trace.read_text())["traceEvents"]
    encodings = 1 if micro_batch is None else 4  # two micro-batches, each encoded without and with gradients
    calls = dict.fromkeys(PHASES, 1.0) | {"encode image": encodings, "encode text": encodings}
    calls["backward"] = 1 if micro_batch is None else 3
    assert {phase.name: phase.calls for phase in found.phases} == calls
    for phase in found.phases:
        lasted = [event["dur"] for event in events if event.get("name") == f"tbps: {phase.name}" and event["ph"] == "X"]
        assert len(lasted) == found.updates * phase.calls
        assert phase.seconds == pytest.approx(1e-6 * sum(lasted) / found.updates, rel=1e-3)
        assert phase.device_seconds is None
    assert sum(phase.share for phase in found.phases) == pytest.approx(1)
    assert len(found.operations) == 10
    assert [cost.share for cost in found.operations] == sorted((cost.share for cost in found.operations), reverse=True)
    for cost in found.operations:  # an operation that calls another of the same name is one call in the costs and two in the trace
        traced = sum(event.get("name") == cost.name and event["ph"] == "X" for event in events)
        assert 0 < found.updates * cost.calls <= traced <= 2 * found.updates * cost.calls
