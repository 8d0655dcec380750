"""Every benchmark runs at toy size and reports positive numbers. Their values are not checked: the machine may be busy."""

from pathlib import Path

import gpu
import gpu_bench
import pytest
import quality
import scaling
from everything import ALL
from results import read

STARTING_PROCESSES = ("side by side", "startup", "serving")  # slow, because a run starts several processes; run once


@pytest.mark.parametrize("name", list(ALL))
def test_every_benchmark_runs(name: str, tmp_path: Path) -> None:
    runs = 1 if name in STARTING_PROCESSES else 2
    benchmark = ALL[name](True, runs)
    assert benchmark.name == name and benchmark.rows
    keys = [(row.what, row.at, row.unit) for row in benchmark.rows]
    assert len(set(keys)) == len(keys), "compare.py identifies rows by these keys"
    assert all(run > 0 for row in benchmark.rows for run in row.runs if "memory" not in row.what)
    if name == "scaling":
        rows = [{"what": r.what, "at": r.at, "median": r.median, "least": r.least, "most": r.most} for r in benchmark.rows]
        scaling.draw({"rows": rows, "conditions": benchmark.conditions}, tmp_path / "scaling.png")
        assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_the_gpu_benchmark_runs_on_a_cpu(tmp_path: Path) -> None:
    file, failed = gpu.measure("cpu", True, 300, tmp_path)
    (benchmark,) = read(file)["benchmarks"]
    assert not failed, benchmark["conditions"]["notes"]
    whats = [row["what"] for row in benchmark["rows"]]
    for part in ("matrices", "decoded", "full recipe", "plain trainer", "breakdown", "simplified", "micro-batches", "five epochs"):
        assert any(part in what for what in whats), part
    assert any("measured" in what for what in whats if "five epochs" in what)


def test_a_run_that_does_not_fit_the_budget_is_reported_as_extrapolated(tmp_path: Path) -> None:
    sizes = gpu_bench.TOY
    bench = gpu_bench.Bench("cpu", sizes, 0, tmp_path)
    gpu.part_cache(bench)
    gpu.part_run(bench)
    (row,) = [row for row in bench.rows if "five epochs" in row.what]
    assert "extrapolated from 1 of 20 updates" in row.what


def test_a_failed_part_is_named_and_the_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(bench: gpu_bench.Bench) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setitem(gpu.PARTS, "compiled", (broken, 0))
    file, failed = gpu.measure("cpu", True, 300, tmp_path, ("compiled", "machine"))
    (benchmark,) = read(file)["benchmarks"]
    assert failed == ["compiled"]
    assert "compiled: failed with RuntimeError: no compiler" in benchmark["conditions"]["notes"]
    assert any("matrices" in row["what"] for row in benchmark["rows"])


def test_the_gpu_data_have_the_published_numbers() -> None:
    from tbps.data.records import PersonDataset, PersonImage

    drawn = PersonDataset("x", Path("/"), (PersonImage(Path("/a.jpg"), 0, "train", ("one", "two"), ("three", "four")),))
    made = gpu_bench.repeated(drawn, gpu_bench.FULL)
    train = made.split("train")
    assert (len(train.images), len(train.pairs())) == (34_054, 68_126)
    assert len({image.identity for image in train.images}) == 11_003
    assert [(len(s.images), len(s.pairs())) for s in (made.split("val"), made.split("test"))] == [(3078, 6158), (3074, 6156)]


def test_the_quality_benchmark_runs() -> None:
    benchmark = quality.measure(True, 1)
    assert {row.unit for row in benchmark.rows} == {"%", "s"}
    assert benchmark.conditions["fast mean"] == benchmark.rows[0].runs[0]
