"""Reports of hand-written results: numbers equal those calculated by hand; the page escapes all text and loads nothing."""

import csv
import io
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tbps.errors import CheckpointError, DataError
from tbps.study.ablations import table
from tbps.study.report.files import markdown, runs_csv, summary_csv, write_reports
from tbps.study.report.plots import plots
from tbps.study.report.tables import TableReport, read_study
from tbps.study.step import STEP, Data, Start, Step, write_step

EVIL = "<script>alert(1)</script>|*x*"
R1 = {
    "clip": (50.0, 51.0, 52.0),
    "clip+dropout": (51.0, 52.5, 53.0),  # better with every seed, as in the paper
    "clip+lock_bottom": (49.0, 50.5, 51.9),  # worse with every seed
    "clip+soft_label": (49.0, 51.0, 53.0),  # mixed
    "clip*": (60.0,),
}


def write_study(
    study: Path, name: str, values: dict[str, tuple[float, ...]], start: str = "tiny", more: Mapping[str, float] | None = None
) -> None:
    """Write a plan and results as `tbps study run` does; seed 9 of the base has failed, seed 8 has not started.

    `more`: further values in the result of every run.
    """
    rows: dict[str, dict[str, str]] = {}
    for row, numbers in values.items():
        for seed, r1 in enumerate(numbers):
            step = f"{name} {row} {seed}".replace("/", " ")
            rows.setdefault(row, {})[str(seed)] = step
            metrics = {"r1": r1, "r5": r1 + 10, "r10": r1 + 15, "map": r1 - 5, "minp": 20.0, "ceiling_r1": None}
            work = table(name).row(row).work
            counts = {"parameters": 149.6e6, "trained": 149.2e6, "updates": 10, "encode_flops": 41.1e9, "train_flops": 400e9}
            measured = {"train_seconds": 100.0 + seed, "test_seconds": 3.0, "peak_bytes": 2.0 * 2**30, "device": "cpu, x86_64"}
            result = {
                "step": step,
                "kind": work.kind,
                "seed": seed,
                "data": {"name": "cuhk-pedes", "fingerprint": "d1", "images": 100},
                "start": {"name": start, "fingerprint": "m1", "first": None},
                "split": {"name": "test", "queries": 200, "gallery": 100},
                "values": metrics | counts | dict(more or {}),
                "measured": measured | {"torch": "2", "finished_at": "now"},
            }
            folder = study / "steps" / step
            write_step(study, Step(work.seeded(seed), Data("cuhk-pedes", "", "d1"), Start(start, None, "m1"))).rename(folder)
            (folder / "result.json").write_text(json.dumps(result))
    base = next(iter(values))
    rows[base] |= {"9": "failing", "8": "absent"}
    (study / "steps" / "failing").mkdir(parents=True, exist_ok=True)
    (study / "steps" / "failing" / "error.json").write_text(json.dumps({"error": f"no {EVIL}"}))
    record = {
        "table": name,
        "data": {"name": "cuhk-pedes", "fingerprint": "d1", "counts": {"train": [10, 20, 40]}},
        "start": {"name": start, "fingerprint": "m1", "backbone": "ViT-B/16"},
        "changes": {"batch_size": EVIL},
        "rows": rows,
    }
    (study / "plans").mkdir(exist_ok=True)
    (study / "plans" / f"{name}-00000000.json").write_text(json.dumps(record))


@pytest.fixture
def reports(tmp_path: Path) -> list[TableReport]:
    write_study(tmp_path, "tricks", R1)
    return read_study(tmp_path)


def test_rows_equal_numbers_calculated_by_hand(reports: list[TableReport]) -> None:
    (tricks,) = reports
    lines = {row.name: row for row in tricks.rows}
    assert list(lines) == list(R1)  # the order of the table
    assert lines["clip"].spreads["r1"].mean == 51.0 and lines["clip"].spreads["r1"].std == pytest.approx(1.0)
    assert lines["clip"].seeds == [0, 1, 2] and set(lines["clip"].missing) == {8, 9}
    dropout = lines["clip+dropout"]
    assert dropout.differences["r1"].mean == pytest.approx(np.mean([1, 1.5, 1]))
    assert dropout.paper_difference("r1") == pytest.approx(61.06 - 60.67)
    assert dropout.changes == {"text_attention_dropout": 0.05}
    signs = {name: line.agreement for name, line in lines.items()}
    assert signs == {
        "clip": "",
        "clip+dropout": "agrees",
        "clip+lock_bottom": "disagrees",
        "clip+soft_label": "unclear",
        "clip*": "unclear",  # no interval from one seed
    }


def test_markdown_names_data_model_and_seeds_of_its_numbers(reports: list[TableReport]) -> None:
    text = markdown(reports)
    assert "| clip+dropout | 0, 1, 2 | 52.17 ± 1.04 | 62.17 ± 1.04 |" in text
    row = next(line for line in text.splitlines() if line.startswith("| clip+dropout"))
    assert "| +1.17 (+1.00 to +1.50) |" in row and row.endswith("| 61.06 | 55.10 | +0.39 | agrees |")
    for said in ("cuhk-pedes (d1)", "200 queries against 100 images of test", "tiny (m1, ViT-B/16)", "CUHK-PEDES ViT-B/32"):
        assert said in text, said
    assert "25% with 3" in text and "single seed" in text
    assert "Not run: clip, seeds 9: failed: no" in text and "Not run: clip, seeds 8: not begun" in text
    assert "Not run: not asked for: clip+globalgrad" in text
    assert "<script" not in text.replace("\\<script", "")
    cells = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("| ")}
    assert len(cells) == 1


class Page(HTMLParser):
    """Collects what a browser would load or run, and checks that every tag is closed."""

    void = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, Any]]) -> None:
        if tag not in self.void:
            self.open.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        for name, value in attributes:
            if (name in ("src", "href", "xlink:href", "action", "data") and not value.startswith("#")) or name.startswith("on"):
                self.loads.append((tag, value))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, Any]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_loads_nothing_and_escapes_everything(tmp_path: Path) -> None:
    write_study(tmp_path, "tricks", R1, start=EVIL)
    write_study(tmp_path, "pair-augmentation", {"clip*": (1.0, 2.0), "mixgen": (1.5, 2.6)})
    files = write_reports(read_study(tmp_path), tmp_path / "out")
    html = next(file for file in files if file.suffix == ".html").read_text()
    page = Page()
    page.feed(html)
    assert page.open == [] and page.loads == []
    assert (
        "<script" not in html and "url(" not in html.replace("url(#", "") and "@import" not in html and "<!DOCTYPE svg" not in html
    )
    assert html.count("<svg") == 2 and len(page.ids) == len(set(page.ids))
    assert "prefers-color-scheme: dark" in html and "width=device-width" in html and "#123456" not in html
    text = "".join(page.text)
    assert EVIL in text and "52.17 ± 1.04" in text and "failed: no" in text
    assert (
        html == next(file for file in write_reports(read_study(tmp_path), tmp_path / "out") if file.suffix == ".html").read_text()
    )


def test_contributions_are_a_heat_map_of_each_tower(tmp_path: Path) -> None:
    parts = ("attention", "feed_forward", "layer")
    modules = [
        f"{tower}.{layer}.{part}" for tower, depth in (("image", 4), ("text", 2)) for layer in range(depth) for part in parts
    ]
    modules = [f"{tower}.{int(layer) + 1}.{part}" for tower, layer, part in (name.split(".") for name in modules)]
    values = {f"{probe}.{module}": place / 100 for place, module in enumerate(modules) for probe in ("c1", "c2")}
    row = "simplified_tbps_clip"
    write_study(tmp_path, "contribution", {row: (50.0, 52.0)}, more=values)
    work = table("contribution").row(row).work.changed({"probe.tolerance": 1.5})
    for seed in (0, 1):
        step = Step(work.seeded(seed), Data("cuhk-pedes", "", "d1"), Start("tiny", None, "m1"))
        (write_step(tmp_path, step) / STEP).replace(tmp_path / "steps" / f"contribution {row} {seed}" / STEP)
    files = {file.name: file for file in write_reports(read_study(tmp_path), tmp_path / "out")}
    page = Page()
    page.feed(files["report.html"].read_text())
    assert page.loads == [] and files["report.html"].read_text().count("<svg") == 1
    said = [text for text in page.text if text in {f"{place / 100:.2f}" for place in range(len(modules))}]
    # C1 of the image tower, part by part, and of the text tower; then C2
    order = [f"{modules.index(f'{tower}.{layer}.{part}') / 100:.2f}" for tower, depth in (("image", 4), ("text", 2))
             for part in parts for layer in range(1, depth + 1)]  # fmt: skip
    assert said == 2 * order
    assert {"self-attention", "whole layer", "C1, text tower", "C2, image tower"} <= set(page.text)
    with Image.open(files["1-contribution-simplified_tbps_clip.png"]) as picture:
        assert picture.format == "PNG"
    assert "plots/1-contribution-simplified_tbps_clip.png)" in files["report.md"].read_text()
    assert "for Rank-1 to lose at most 1.5 points." in files["report.md"].read_text()  # of the steps that were done


def test_smaller_models_are_plotted_against_their_cost(tmp_path: Path) -> None:
    rows = {"full": (60.0, 61.0), "depth 1/2": (40.0, 42.0), "depth 1/2 taught": (50.0, 51.0)}
    write_study(tmp_path, "distillation", rows, more={"encode_seconds": 0.02})
    (report,) = read_study(tmp_path)
    named = {plot.name: plot for plot in plots(report)}
    assert list(named) == ["differences", "trade-off"]
    drawn = named["trade-off"].svg("x")
    for said in ("Rank-1", "parameters, M", "GFLOP to embed a pair", "a pair on a CPU, ms", "smaller, alone", "smaller, taught"):
        assert said in drawn, said
    text = markdown([report])
    assert "| depth 1/2 taught | 0, 1 | 149.6 | 41.10 | 20.0 |" in text and "+9.50" in text
    assert "Not run: not asked for: depth 3/4, " in text


def test_tables_of_one_name_show_what_distinguishes_them(tmp_path: Path) -> None:
    write_study(tmp_path, "tricks", R1)
    write_study(tmp_path, "losses", {"clip*+aug": (60.0, 61.0)})
    file = tmp_path / "plans" / "losses-00000000.json"
    record = json.loads(file.read_text())
    for key, changed in (
        ("1", {"changes": record["changes"] | {"schedule.epochs": "4"}}),
        ("2", {"start": record["start"] | {"fingerprint": "m2"}}),
    ):
        (tmp_path / "plans" / f"losses-0000000{key}.json").write_text(json.dumps(record | changed))
    reports = read_study(tmp_path)
    assert [report.apart for report in reports] == [
        "",
        "start = tiny m1",
        "start = tiny m1, schedule.epochs = 4",
        "start = tiny m2",
    ]
    files = {file.name: file for file in write_reports(reports, tmp_path / "out")}
    assert "\n## losses: losses, start = tiny m1, schedule.epochs = 4\n" in files["report.md"].read_text()
    assert ">losses (start = tiny m2)</a>" in files["report.html"].read_text()
    assert [report.apart for report in read_study(tmp_path, ["tricks"])] == [""]


@pytest.mark.parametrize(("name", "row", "beside"), [("losses", "n_itc", True), ("distillation", "depth 1/2", False)])
def test_a_plot_shows_the_papers_numbers_if_there_are_any(name: str, row: str, beside: bool, tmp_path: Path) -> None:
    base = table(name).row(row).base
    assert base is not None
    write_study(tmp_path, name, {base: (60.0, 61.0), row: (40.0, 42.0)})
    (report,) = read_study(tmp_path)
    drawn = next(plot for plot in plots(report) if plot.name == "differences").svg("x")
    assert (">paper<" in drawn) == beside and ">ours: mean" in drawn


def test_csv_holds_every_run_and_every_summary(reports: list[TableReport]) -> None:
    runs = list(csv.DictReader(io.StringIO(runs_csv(reports))))
    assert len(runs) == sum(map(len, R1.values()))
    assert {(run["row"], run["seed"], float(run["r1"])) for run in runs} == {
        (n, str(s), v) for n, vs in R1.items() for s, v in enumerate(vs)
    }
    assert all(run["data_fingerprint"] == "d1" and run["start_fingerprint"] == "m1" for run in runs)
    summary = [line for line in csv.DictReader(io.StringIO(summary_csv(reports))) if line["metric"] == "r1"]
    by_row = {line["row"]: line for line in summary}
    assert float(by_row["clip+dropout"]["difference"]) == pytest.approx(7 / 6)
    assert by_row["clip+dropout"]["sign"] == "agrees" and by_row["clip+dropout"]["seeds"] == "0, 1, 2"
    assert by_row["clip*"]["std"] == "" and by_row["clip*"]["low"] == ""


def test_costs_are_shown_beside_those_of_the_paper(tmp_path: Path) -> None:
    write_study(tmp_path, "cost", {"clip": (50.0,), "tbps_clip": (60.0, 61.0)})
    (cost,) = read_study(tmp_path)
    text = markdown([cost])
    row = [line for line in text.splitlines() if line.startswith("| tbps_clip")][1]
    assert row == "| tbps_clip | 0, 1 | 149.6 | 149.2 | 41.10 | 400.00 | 100.5 | 3.0 | 2.00 | 149.2 | 1,234.7 | 31.4 |"
    assert "| rasa (paper only) |  |  |  |  |  |  |  |  | 210.2 | 27,967.5 | 869.8 |" in text


def test_literature_and_missing_rows_are_named(tmp_path: Path) -> None:
    write_study(tmp_path, "benchmarks", {"clip": (50.0, 51.0)})
    write_study(tmp_path, "few-shot", {"1%/clip": (5.0, 6.0)})
    found = {report.name: report for report in read_study(tmp_path)}
    assert [row.row for row in found["benchmarks"].references] == ["irra", "rasa"]
    assert found["benchmarks"].rows[0].paper is not None and found["benchmarks"].rows[0].paper.values["r1"] == 65.37
    text = markdown(list(found.values()))
    assert "| rasa (paper only) |" in text and "76.51" in text
    assert "Not run: not asked for: 1%/coop, " in text and len(table("few-shot").rows) == 15


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tbps study run"):
        read_study(tmp_path)
    write_study(tmp_path, "tricks", R1)
    assert [report.name for report in read_study(tmp_path, ["tricks"])] == ["tricks"]
    with pytest.raises(DataError, match="holds no study of losses"):
        read_study(tmp_path, ["losses"])
    (tmp_path / "plans" / "tricks-00000000.json").write_text('{"table": "tricks"')
    with pytest.raises(CheckpointError, match="is damaged"):
        read_study(tmp_path)
