"""`tbps calibrate` and `tbps gallery check` through the program's own entry."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tbps.cli import main
from tbps.data.mannequins.writing import SplitSize, write_mannequins
from tbps.model.bundle import load
from tbps.search.gallery import Gallery


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tbps", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_calibrated_model_draws_a_line(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, people, gallery = tmp_path / "model", tmp_path / "people", tmp_path / "gallery"
    shutil.copytree(tiny_model_folder, model)
    write_mannequins(people, {"val": SplitSize(6, 4)}, seed=1, workers=1)
    assert _run(monkeypatch, "calibrate", model, "--data", "folder", "--root", people) == 0
    assert "48 captions and 24 images, 4.0 right images a caption" in capsys.readouterr().out.replace("\n", " ")
    Gallery.open(gallery, load(model)).add(people)
    assert _run(monkeypatch, "search", gallery, "a woman", "-k", 3) == 0
    out = capsys.readouterr().out
    assert "right" in out and "by the model's calibration" in " ".join(out.split())
    assert _run(monkeypatch, "search", gallery, "a woman", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["line"]["hits"] >= 0 and all(0 <= hit["chance"] <= 1 for hit in found["hits"])
    assert _run(monkeypatch, "calibrate", tmp_path / "nowhere", "--data", "folder", "--root", people) == 2
    assert "is no model folder" in capsys.readouterr().err

    (tmp_path / "queries.txt").write_text("a woman in red\n\na man\n")
    assert _run(monkeypatch, "gallery", "check", gallery, "--queries", tmp_path / "queries.txt") == 0
    assert "24 images are searched exactly: 100.0 % of the best 10" in " ".join(capsys.readouterr().out.split())
    assert _run(monkeypatch, "gallery", "check", gallery, "--json") == 0
    assert json.loads(capsys.readouterr().out)["queries"] == 200
    assert _run(monkeypatch, "gallery", "check", gallery, "--queries", tmp_path / "none.txt") == 2
    assert "cannot be read as text" in capsys.readouterr().err
