"""`tbps study`: dry runs without the data set, and errors in arguments."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tbps.cli import app
from tbps.cli.study import parse_seeds
from tbps.errors import DataError, SettingsError
from tbps.study.ablations import TABLES, table

RUN = ["study", "run", "all", "--root", "missing", "--dry-run"]


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


# The number of pairs depends on the data set, and the model's size on the patch; no more combinations are needed.
@pytest.mark.parametrize(
    ("data", "updates", "patch"), [("cuhk-pedes", 1060, 32), ("icfg-pedes", 505, 32), ("rstpreid", 575, 32), ("rstpreid", 575, 16)]
)
def test_dry_runs_need_no_data(data: str, updates: int, patch: int) -> None:
    said = invoke(*RUN, "--data", data, "--model", f"openai/clip-vit-base-patch{patch}")
    assert f"published counts; start openai/clip-vit-base-patch{patch} ViT-B/{patch}" in said
    for name in TABLES:
        assert f"{name}, seeds 0, 1, 2" in said
    assert "too few pairs" not in said and "cannot run" not in said
    assert all(row.name in said for row in table("few-shot").rows)
    clip = next(line for line in said.splitlines() if line.startswith("│ clip "))
    assert f"{updates:,} │" in clip  # pairs // 320 * 5


def test_overrides_apply_to_every_row() -> None:
    arguments = ["--data", "rstpreid", "--model", "x", "--json", "--epochs", "2", "--set", "batch_size=32", "--seeds", "7,8"]
    said = json.loads(invoke(*RUN, *arguments))
    assert set(said) == set(TABLES)
    for name, rows in said.items():
        assert list(rows) == [row.name for row in table(name).rows]
        for work in rows.values():
            train = work["train"]
            assert (train["schedule"]["epochs"], train["batch_size"], train["seed"]) == (2, 32, 7)


def test_rows_of_a_table_can_be_selected() -> None:
    said = invoke("study", "run", "losses", *RUN[3:], "--data", "rstpreid", "--model", "x", "--rows", "clip*+aug, r_itc")
    assert "r_itc" in said and "ss_i" not in said and "6 steps" in said


def test_the_list_names_tables_and_rows() -> None:
    said = invoke("study", "list")
    assert all(name in said for name in TABLES) and "mvs_it" in said


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["study", "run", "trick", *RUN[3:], "--data", "rstpreid", "--model", "x"], SettingsError, "there are tricks"),
        (
            [*RUN, "--data", "rstpreid", "--model", "x", "--set", "losess.ss.weight=1"],
            SettingsError,
            "did you mean 'losses.ss.weight'",
        ),
        ([*RUN, "--data", "rstpreid", "--model", "x", "--on", "mars"], SettingsError, "none of here, gpus, slots, ray"),
        ([*RUN, "--data", "rstpreid"], SettingsError, "give one with --model"),
        ([*RUN, "--data", "folder", "--model", "x"], DataError, "not published"),
        (["study", "report", "--study", "nowhere"], DataError, "begin with"),
    ],
)
def test_errors_name_the_wrong_argument(arguments: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        invoke(*arguments)


def test_seeds_are_a_count_or_a_list() -> None:
    assert parse_seeds("3") == [0, 1, 2] and parse_seeds("0,4,7") == [0, 4, 7] and parse_seeds("4,") == [4]
    for wrong in ("0", "x", "1,-2", "2.5"):
        with pytest.raises(SettingsError, match="give how many"):
            parse_seeds(wrong)


def test_a_report_can_be_written_before_any_row_is_done(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    record = {
        "table": "tricks",
        "data": {"name": "folder", "fingerprint": "d", "counts": {"train": [1, 2, 3]}},
        "start": {"name": "m", "fingerprint": "f", "backbone": None},
        "changes": {},
        "rows": {"clip": {"0": "abc"}},
    }
    (tmp_path / "plans" / "tricks-00000000.json").write_text(json.dumps(record))
    invoke("study", "report", "tricks", "--study", str(tmp_path), "--out", str(tmp_path / "out"))
    said = (tmp_path / "out" / "report.md").read_text()
    assert "Not run: clip, seeds 0: not begun" in said and "nothing scored yet" in said
