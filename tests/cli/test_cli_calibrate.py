"""`tbps calibrate` and `tbps gallery check` through the program's own entry."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tbps.data.mannequins.writing import SplitSize, write_mannequins
from tbps.gallery.gallery import Gallery
from tbps.model.bundle import load


def test_a_calibrated_model_draws_a_line(tmp_path: Path, tiny_model_folder: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    model, people, gallery = tmp_path / "model", tmp_path / "people", tmp_path / "gallery"
    shutil.copytree(tiny_model_folder, model)
    write_mannequins(people, {"val": SplitSize(6, 4)}, seed=1, workers=1)
    code, out, err = run("calibrate", model, "--data", "folder", "--root", people)
    assert code == 0, err
    assert "48 captions and 24 images, 4.0 right images a caption" in out.replace("\n", " ")
    Gallery.open(gallery, load(model)).add(people)
    code, out, err = run("search", gallery, "a woman", "-k", 3)
    assert code == 0, err
    assert "right" in out and "by the model's calibration" in " ".join(out.split())
    code, out, err = run("search", gallery, "a woman", "--json")
    assert code == 0, err
    (found,) = json.loads(out)
    assert found["line"]["hits"] >= 0 and all(0 <= hit["chance"] <= 1 for hit in found["hits"])
    code, out, err = run("calibrate", tmp_path / "nowhere", "--data", "folder", "--root", people)
    assert code == 2 and "is no model folder" in err

    (tmp_path / "queries.txt").write_text("a woman in red\n\na man\n")
    code, out, err = run("gallery", "check", gallery, "--queries", tmp_path / "queries.txt")
    assert code == 0, err
    assert "24 images are searched exactly: 100.0 % of the best 10" in " ".join(out.split())
    code, out, err = run("gallery", "check", gallery, "--json")
    assert code == 0, err
    assert json.loads(out)["queries"] == 200
    code, out, err = run("gallery", "check", gallery, "--queries", tmp_path / "none.txt")
    assert code == 2 and "cannot be read as text" in err
