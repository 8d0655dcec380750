"""Galleries, service folders, runs and models that version 0.1 wrote can be opened (README.md lists what they contain)."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from tbps.gallery.gallery import Gallery
from tbps.gallery.lifecycle.snapshots import restore, snapshots
from tbps.gallery.store.retention_rules import read_retention
from tbps.model.bundle import load
from tbps.server import Keys, verify
from tests.support.colour_encoder import ColourEncoder, write_pictures

RunTbps = Callable[..., tuple[int, str, str]]
WRITTEN = Path(__file__).with_name("written.tar.xz")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A copy of everything that version 0.1 wrote."""
    with tarfile.open(WRITTEN) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def facts(written: Path) -> dict:
    return json.loads((written / "facts.json").read_text())


def test_a_gallery_has_the_same_hits(written: Path) -> None:
    hits = Gallery.open(written / "gallery", ColourEncoder()).search("a red coat", k=30)
    expected = facts(written)["hits"]
    assert [[hit.id, hit.camera, hit.identity, hit.captured_at] for hit in hits] == [[h[0], *h[2:]] for h in expected]
    np.testing.assert_allclose([hit.score for hit in hits], [h[1] for h in expected], atol=1e-6)  # float32 products


def test_a_gallery_can_be_filtered(written: Path) -> None:
    gallery = Gallery.open(written / "gallery", ColourEncoder())
    of_camera = [hit for hit in gallery.search("a red coat", k=30) if hit.camera == "lobby"]
    assert {hit.id for hit in gallery.search("a red coat", k=30, where="camera = 'lobby'")} == {hit.id for hit in of_camera}
    younger = gallery.search("a red coat", k=30, where="age < 7 and seen = true")
    assert sorted(hit.attributes["age"] for hit in younger) == [0, 2, 6]  # 4 was erased


def test_images_can_be_added_to_a_gallery(written: Path) -> None:
    gallery = Gallery.open(written / "gallery", ColourEncoder())
    more = write_pictures(written / "more", 3, seed=7)
    before = len(gallery)
    report = gallery.add(more, [{"camera": "gate", "age": 40 + number} for number in range(3)])
    assert (report.added, len(gallery)) == (3, before + 3)
    assert len(gallery.search("a red coat", k=30, where="age >= 40")) == 3


def test_snapshots_and_retention_rules_are_read(written: Path) -> None:
    folder = written / "gallery"
    assert [each.name for each in snapshots(folder)] == ["before"]
    assert dict(read_retention(folder).cameras) == {"lobby": 36500}
    restore(folder, "before")
    assert len(Gallery.open(folder, ColourEncoder())) == 16


def test_audit_log_and_keys_of_a_service_are_read(written: Path) -> None:
    state = written / "gallery.service"
    verdict = verify(state)
    assert verdict.wrong is None
    assert verdict.lines >= 3
    assert [key.name for key in Keys(state).all()] == ["front desk", "lobby desk"]


def test_a_model_has_the_same_embeddings(written: Path) -> None:
    model = load(written / "model")
    expected = np.load(written / "embeddings.npz")
    photos = [Image.open(path) for path in write_pictures(written / "photos", 24)[:2]]
    np.testing.assert_allclose(model.encode_images(photos), expected["images"], atol=1e-6)
    np.testing.assert_allclose(model.encode_texts(["a woman in a red coat"]), expected["texts"], atol=1e-6)


# The settings of the run: those of `quick` in tests/training/test_training_resume.py.
QUICK = (
    "image={}",
    "batch_size=16",
    "lock.patch_projection=false",
    "schedule.epochs=3",
    "schedule.peak_rate=2e-3",
    "schedule.initial_rate=1e-4",
    "losses.r_itc.labels=normalised",
    "checkpoint_steps=2",
)


def resume(written: Path, data: Path, *changes: str) -> list[str]:
    """Arguments of `tbps` for resuming the stopped run of version 0.1."""
    command = ["train", "simplified_tbps_clip", "--data", "folder", "--root", str(data)]
    command += ["--model", str(written / "model"), "--out", str(written / "run"), "--resume", "--device", "cpu"]
    for change in (*QUICK, *changes):
        command += ["--set", change]
    return command


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(written: Path, flags: Path, run_tbps: RunTbps) -> None:
    code, _, messages = run_tbps(*resume(written, flags))
    assert code == 0, messages
    assert "goes on with image.training_resize=bicubic" in " ".join(messages.split())
    whole = json.loads((written / "whole.json").read_text())
    state = load_file(written / "run" / "checkpoints" / whole["checkpoint"])
    assert state.keys() == whole["sums"].keys()
    for name, sums in whole["sums"].items():
        values = state[name].double()
        # Weights are bit-identical on the processor that wrote them; other processors round differently.
        np.testing.assert_allclose([values.sum().item(), values.square().sum().item()], sums, rtol=1e-3, atol=2e-3, err_msg=name)
    kinds = [json.loads(line)["kind"] for line in (written / "run" / "log.jsonl").read_text().splitlines()]
    assert kinds.count("val") == 3, "one line per epoch, the first written by version 0.1"


def test_resuming_with_other_settings_is_refused(written: Path, flags: Path, run_tbps: RunTbps) -> None:
    code, _, messages = run_tbps(*resume(written, flags, "schedule.peak_rate=3e-3"))
    assert code == 2
    assert "schedule.peak_rate is 0.002 there and 0.003 here" in " ".join(messages.split())
    assert not (written / "run" / "checkpoints" / "step-00000009.safetensors").exists()
