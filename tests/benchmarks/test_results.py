"""Records of runs, comparison of two runs, and figures in documents. No time is asserted."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from compare import changes
from compare import report as comparison
from measuring import Measurement, ratios
from report import filled, sections
from results import Benchmark, keep, read

STARTED = datetime(2026, 11, 25, 12, 30, 5)


def kept(folder: Path, *rows: Measurement, toy: bool = False) -> Path:
    return keep([Benchmark("steps", rows, {"batch": 8})], toy, STARTED, folder)


def test_a_record_is_written_and_read_back(tmp_path: Path) -> None:
    file = kept(tmp_path / "new", Measurement("ours", "s", (3.0, 1.0, 2.0)), Measurement("built", "s", (4.0,), at=1000))
    assert sorted(path.name for path in file.parent.iterdir()) == ["2026-11-25-123005.json", "2026-11-25-123005.md"]
    found = read(file)
    assert found["started"] == "2026-11-25T12:30:05" and found["toy"] is False
    assert set(found["machine"]) == {"cpu", "cores", "memory_gb", "flags", "system", "gpu", "load"}
    assert {"python", "torch", "numpy"} <= set(found["versions"])
    (benchmark,) = found["benchmarks"]
    assert benchmark["rows"][0] == {"what": "ours", "unit": "s", "median": 2.0, "least": 1.0, "most": 3.0, "runs": [3.0, 1.0, 2.0]}
    assert benchmark["rows"][1]["at"] == 1000
    table = file.with_suffix(".md").read_text()
    assert "| ours | 2 | 1 | 3 | s |" in table and "| built, 1,000 | 4 | 4 | 4 | s |" in table and "With batch 8." in table


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, text in (("a.json", "{"), ("b.json", json.dumps({"format": "else"})), ("c.json", "[]")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=name):
            read(tmp_path / name)


def test_ratios_are_taken_run_by_run() -> None:
    assert ratios("a / b", (2.0, 9.0), (1.0, 3.0)).runs == (2.0, 3.0)


def test_a_change_exceeds_the_spread_where_runs_do_not_overlap(tmp_path: Path) -> None:
    a = read(
        kept(
            tmp_path / "a",
            Measurement("faster", "s", (4.0, 5.0)),
            Measurement("same", "s", (4.0, 5.0)),
            Measurement("gone", "s", (1.0,)),
        )
    )
    b = read(
        kept(
            tmp_path / "b",
            Measurement("faster", "s", (2.0, 3.0)),
            Measurement("same", "s", (3.0, 4.5)),
            Measurement("new", "s", (1.0,)),
        )
    )
    faster, same = changes(a, b)
    assert (faster.what, faster.exceeds) == ("faster", True) and (same.what, same.exceeds) == ("same", False)
    assert (faster.ratio, faster.least, faster.most) == pytest.approx((2.5 / 4.5, 2 / 5, 3 / 4))
    text = comparison(a, b)
    assert "| steps | faster | s | 0.556 | 0.400 | 0.750 | yes |" in text
    assert "Only in A: steps: gone (s)" in text and "Only in B: steps: new (s)" in text
    assert "Different machines" not in text
    b["machine"]["cpu"] = "another"
    assert "Different machines" in comparison(a, b)


def test_sections_of_a_document_are_filled(tmp_path: Path) -> None:
    texts = sections([read(kept(tmp_path, Measurement("ours", "s", (1.0,))))])
    document = "x\n<!-- begin steps -->\nold\n<!-- end steps -->\ny\n<!-- begin gpu -->\nkept\n<!-- end gpu -->\n"
    after = filled(document, texts)
    assert "old" not in after and "| ours | 1 | 1 | 1 | s |" in after and "kept" in after
    assert after.startswith("x\n") and filled(after, texts) == after


def test_documents_refuse_results_of_toy_sizes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="toy"):
        sections([read(kept(tmp_path, Measurement("ours", "s", (1.0,)), toy=True))])


def test_every_section_of_the_documents_is_closed() -> None:
    """A section that is not closed would never be filled."""
    import re

    root = Path(__file__).parents[2]
    for name in ("docs/benchmarks.md", "docs/performance.md"):
        text = (root / name).read_text()
        begins, ends = (re.findall(rf"<!-- {word} ([\w ]+) -->", text) for word in ("begin", "end"))
        assert begins and begins == ends
