"""`tbps gallery` and `tbps forget`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tbps.gallery.store.manifest import recorded

PEOPLE = Path(__file__).parents[2] / "people"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The four photographs with metadata; the first has the oldest capture time, the last has none."""
    shutil.copytree(PEOPLE, tmp_path / "photos")
    names = sorted(path.name for path in PEOPLE.glob("*.jpg"))
    rows = [{"file_name": name, "camera": "lobby", "identity": f"p{number}"} for number, name in enumerate(names)]
    for number, row in enumerate(rows[:3]):
        row["captured_at"] = f"202{number}-05-01T08:00:00"
    (tmp_path / "photos" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "photos"


@pytest.fixture
def folder(run: Run, photos: Path, tiny_model_folder: Path, tmp_path: Path) -> Path:
    assert run("index", photos, "--gallery", tmp_path / "g", "--model", tiny_model_folder)[0] == 0
    return tmp_path / "g"


def _images(run: Run, folder: Path) -> int:
    return int(json.loads(run("gallery", "info", folder, "--json")[1])["images"])


def test_info_as_text_and_as_json(run: Run, folder: Path, tiny_model_folder: Path) -> None:
    run("gallery", "snapshot", folder, "monday")
    run("gallery", "retention", folder, "--default-days", 90)
    code, out, _ = run("gallery", "info", folder, "--json")
    told = json.loads(out)
    assert code == 0 and (told["images"], told["model"]) == (4, str(tiny_model_folder))
    assert told["cameras"] == [{"camera": "lobby", "images": 4, "first": "2020-05-01T08:00:00", "last": "2022-05-01T08:00:00"}]
    assert [snapshot["name"] for snapshot in told["snapshots"]] == ["monday"]
    assert told["retention"] == {"default_days": 90, "cameras": {}}
    code, out, _ = run("gallery", "info", folder)
    shown = " ".join(out.split())
    assert code == 0 and "lobby, 4 images, 2020-05-01T08:00:00 to" in shown and "all others: 90 days" in shown


def test_forget_reports_asks_and_erases(run: Run, folder: Path) -> None:
    code, out, _ = run("forget", folder, "--identity", "p1", "--dry-run")
    assert code == 0 and out.startswith("1 images would be forgotten (lobby: 1)\n") and "lobby  2021-05-01T08:00:00  p1" in out
    code, out, _ = run("forget", folder, "--identity", "p1", answer="n\n")
    assert code == 1 and "Erase them for good?" in out and _images(run, folder) == 4
    code, out, _ = run("forget", folder, "--identity", "p1", answer="y\n")
    assert code == 0 and "1 images forgotten in" in out and _images(run, folder) == 3
    code, out, err = run("forget", folder, "--before", "2021-01-01", "--yes")
    assert code == 0 and "1 images forgotten in" in out and _images(run, folder) == 2
    assert "warning: 1 images of the gallery have no time" in err
    code, out, _ = run("forget", folder, "--where", "camera = 'gate'", "--yes")
    assert code == 0 and "0 images would be forgotten" in out
    _, out, err = run("forget", folder, "--where", "camera = 'loby' and true", "--yes")
    assert "0 images would be forgotten" in out and "warning: no camera 'loby'; did you mean 'lobby'?" in err
    code, _, err = run("forget", folder, "--where", "+".join(["1"] * 1000) + " > 0", "--yes")
    assert code == 2 and "arithmetic (+) is not supported" in err and _images(run, folder) == 2
    for arguments, message in (
        (("forget", folder), "no selection of images to forget was given"),
        (("forget", folder, "--where", "x"), "column"),
    ):
        code, _, err = run(*arguments)
        assert code == 2 and err.startswith("error: ") and message in err


def test_retention_rules_are_set_shown_applied_and_removed(run: Run, folder: Path, photos: Path) -> None:
    assert "has no rule" in run("gallery", "retain", folder)[1]
    assert run("gallery", "retention", folder, "--camera", "lobby", "--days", 30)[1] == "camera lobby: 30 days\n"
    assert "3 images would be forgotten" in run("gallery", "retain", folder, "--dry-run")[1]
    assert run("gallery", "retention", folder, "--camera", "lobby", "--remove")[1] == "no rule: images are kept\n"
    assert run("gallery", "retention", folder, "--default-days", 30)[1] == "all others: 30 days\n"
    code, out, err = run("gallery", "retention", folder, "--camera", "loby", "--days", 30)
    assert code == 0 and out.startswith("camera loby: 30 days\n")
    assert "note: no camera 'loby'; did you mean 'lobby'? The rule applies to images added later." in err.replace("\n", " ")
    assert run("search", folder, "a man", "--camera", "loby")[0] == 0, "a camera with a rule may have had images"
    assert run("search", folder, "a man", "--camera", "lobyy")[0] == 2
    assert "camera's rule needs both" in run("gallery", "retention", folder, "--camera", "lobby")[2]
    code, out, err = run("gallery", "retain", folder)
    assert code == 0 and "3 images forgotten" in out and "1 images of the gallery have no time" in err
    code, out, _ = run("index", photos, "--gallery", folder, "--retain")
    assert code == 0 and "3 added" in out and "3 images forgotten" in out and _images(run, folder) == 1


def test_snapshots_are_restored_and_removed(run: Run, folder: Path) -> None:
    assert "snapshot monday holds 4 images" in run("gallery", "snapshot", folder, "monday")[1]
    run("forget", folder, "--identity", "p0", "--yes")
    assert run("gallery", "snapshots", folder)[1].startswith("monday  20")
    assert run("gallery", "restore", folder, "monday", answer="n\n")[0] == 1
    code, out, _ = run("gallery", "restore", folder, "monday", "--yes")
    assert code == 0 and "holds the 3 images of snapshot monday" in out and _images(run, folder) == 3
    assert run("gallery", "snapshot", folder, "monday", "--remove")[0] == 0
    assert run("gallery", "snapshots", folder)[1] == ""
    assert run("gallery", "compact", folder)[0] == 0


def test_reembedding_export_and_import(run: Run, folder: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model_folder, other)
    settings = json.loads((other / "preprocessor_config.json").read_text())
    (other / "preprocessor_config.json").write_text(json.dumps(settings | {"image_mean": [0.5, 0.5, 0.5]}))
    code, out, _ = run("gallery", "reembed", folder, "--model", other)
    assert code == 0 and f"4 images embedded with {other}" in out
    assert recorded(folder).encoder_location == str(other)
    assert run("search", folder, "a man", "--json")[0] == 0
    assert "4 images written to" in run("gallery", "export", folder, tmp_path / "copy.tar")[1]
    code, _, err = run("gallery", "import", tmp_path / "copy.tar", tmp_path / "new")
    assert code == 2 and "pass --model" in err
    code, _, err = run("gallery", "import", tmp_path / "copy.tar", tmp_path / "new", "--model", tiny_model_folder)
    assert code == 2 and "embeddings of model" in err
    code, out, _ = run("gallery", "import", tmp_path / "copy.tar", tmp_path / "new", "--model", other)
    assert code == 0 and "4 images added" in out and _images(run, tmp_path / "new") == 4
