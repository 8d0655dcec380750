"""Training on train and val, as the paper does for ICFG-PEDES: all identities, no validation, and the last epoch is kept."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tbps.data.readers.catalog import read_dataset
from tbps.data.readers.folder import read
from tbps.errors import DataError
from tbps.study.recipes import simplified_tbps_clip
from tbps.training.images import splits_of
from tbps.training.log import read_log
from tbps.training.observer import Silent
from tbps.training.start import start_model
from tbps.training.trainer import train

ALL = {"image": {}, "batch_size": 16, "schedule.epochs": 2, "schedule.peak_rate": 1e-3, "learn_from": "train+val"}


def test_all_identities_of_train_are_learned_in_the_order_of_the_file(tmp_path: Path) -> None:
    """In a layout without val, images that the reader moved from train to val return to their positions in train."""
    from PIL import Image

    (tmp_path / "imgs").mkdir()
    records = []
    for person in range(30):
        Image.new("RGB", (4, 8), (person, 0, 0)).save(tmp_path / "imgs" / f"{person}.png")
        split = "test" if person >= 20 else "train"
        records.append({"file_path": f"{person}.png", "id": person, "captions": ["a man"], "split": split})
    (tmp_path / "ICFG-PEDES.json").write_text(json.dumps(records))
    dataset = read_dataset("icfg-pedes", tmp_path)
    assert len(dataset.split("val").images) == 2
    splits = splits_of(dataset, simplified_tbps_clip().override({"learn_from": "train+val"}))
    assert [image.identity for image in splits["train"].images] == list(range(20))
    assert not splits["val"].images and [image.identity for image in splits["test"].images] == list(range(20, 30))
    assert len(splits_of(dataset, simplified_tbps_clip())["train"].images) == 18


def test_the_last_epoch_is_kept_and_the_log_says_so(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    settings, data = simplified_tbps_clip().override(ALL), read(flags)
    out = train(
        settings, start_model(settings, data, tiny_model_folder, "cpu"), data, tmp_path / "run", Silent(), cache=tmp_path / "c"
    )
    assert out.finished and out.best is None and out.step == 2 * (96 // 16) and out.standing is not None
    log = read_log(tmp_path / "run" / "log.jsonl")
    assert not [record for record in log if record["kind"] == "val"]
    told = [record for record in log if record["kind"] == "selection"]
    assert [record["step"] for record in told] == [6, 12] and all(
        "the last epoch is kept" in str(record["text"]) for record in told
    )
    assert [record["kept"] for record in log if record["kind"] == "epoch"] == [0.0, 1.0]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["selected_by"] == "last epoch" and report["best_epoch"] is None
    newest = load_file(sorted((tmp_path / "run" / "checkpoints").glob("*"))[-1])
    best = load_file(tmp_path / "run" / "best" / "model.safetensors")
    name = "text_projection.weight"
    assert (newest[f"model.clip.{name}"] == best[name]).all()
    again = train(
        settings, start_model(settings, data, tiny_model_folder, "cpu"), data, tmp_path / "run", Silent(), cache=tmp_path / "c"
    )
    assert again.finished and again.step == out.step


def test_without_val_the_message_names_learn_from(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    data = read(flags)
    short = replace(data, images=tuple(image for image in data.images if image.split != "val"))
    settings = simplified_tbps_clip().override(ALL | {"learn_from": "train"})
    with pytest.raises(DataError, match=r"no val split; .*learn_from=train\+val"):
        train(
            settings,
            start_model(settings, short, tiny_model_folder, "cpu"),
            short,
            tmp_path / "run",
            Silent(),
            cache=tmp_path / "c",
        )
