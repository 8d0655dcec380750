"""`tbps data check` and `tbps data describe`."""

import json
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from tbps.cli.data.check import check, describe
from tbps.errors import AnnotationError, ImageError

app = typer.Typer()
app.command()(check)
app.command()(describe)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = []
    for i in range(6):
        Image.new("RGB", (20 + i, 50), (i * 40, 90, 90)).save(tmp_path / f"{i}.jpg")
        caption = "word " * 80 if i == 5 else f"a person in shade {i}"
        lines.append(json.dumps({"file_name": f"{i}.jpg", "caption": caption, "identity": i // 2}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_check_accepts_a_valid_folder(folder: Path) -> None:
    result = CliRunner().invoke(app, ["check", "folder", str(folder), "--decode"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "6 images and 6 captions are usable" in result.stdout


def test_check_finds_truncated_images_by_decoding_and_other_files_by_header(folder: Path) -> None:
    file = folder / "3.jpg"
    file.write_bytes(file.read_bytes()[:-10])
    assert CliRunner().invoke(app, ["check", "folder", str(folder)]).exit_code == 0
    decoded = CliRunner().invoke(app, ["check", "folder", str(folder), "--decode"])
    assert isinstance(decoded.exception, ImageError)
    assert "1 of 6 images cannot be used" in str(decoded.exception)
    assert "3.jpg" in "".join(decoded.stderr.split())
    (folder / "4.jpg").write_text("not a picture")
    assert isinstance(CliRunner().invoke(app, ["check", "folder", str(folder)]).exception, ImageError)


def test_describe_counts_and_writes_a_sheet(folder: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "out" / "sample.png"
    result = CliRunner().invoke(app, ["describe", "folder", str(folder), "--sheet", str(sheet)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "1 of 6 captions have more than 75 words" in result.stdout
    with Image.open(sheet) as picture:
        assert picture.width >= 640
        assert picture.height > 3 * 224


def test_describe_counts_tokens_of_a_model(folder: Path, tiny_model_folder: Path) -> None:
    result = CliRunner().invoke(app, ["describe", "folder", str(folder), "--model", str(tiny_model_folder)], catch_exceptions=False)
    assert "1 of 6 captions have more than 77 tokens" in " ".join(result.stdout.split())


def test_missing_images_are_skipped_and_counted_if_allowed(folder: Path) -> None:
    (folder / "2.jpg").unlink()
    refused = CliRunner().invoke(app, ["check", "folder", str(folder)])
    assert isinstance(refused.exception, AnnotationError)
    assert "1 of 6 image files are missing" in str(refused.exception) and "--allow-missing" in str(refused.exception)
    for verb in ("check", "describe"):
        result = CliRunner().invoke(app, [verb, "folder", str(folder), "--allow-missing"], catch_exceptions=False)
        assert result.exit_code == 0
        assert "1 of 6 image files are missing and were left out" in " ".join(result.stderr.split())
