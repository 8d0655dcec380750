"""Galleries, service folders, runs and models that version 0.1 wrote open with today's code (see README.md for what they hold)."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from colour_encoder import ColourEncoder, write_pictures
from PIL import Image

from tbps.model.bundle import load
from tbps.search.gallery import Gallery
from tbps.search.retention import read_retention
from tbps.search.snapshots import restore, snapshots
from tbps.server.audit import verify
from tbps.server.keys import Keys

WRITTEN = Path(__file__).with_name("written.tar.xz")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder of its own with everything that version 0.1 wrote."""
    with tarfile.open(WRITTEN) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def facts(written: Path) -> dict:
    return json.loads((written / "facts.json").read_text())


def test_a_gallery_answers_as_before(written: Path) -> None:
    hits = Gallery.open(written / "gallery", ColourEncoder()).search("a red coat", k=30)
    expected = facts(written)["hits"]
    assert [[hit.id, hit.camera, hit.identity, hit.captured_at] for hit in hits] == [[h[0], *h[2:]] for h in expected]
    np.testing.assert_allclose([hit.score for hit in hits], [h[1] for h in expected], atol=1e-6)  # float32 products


def test_filters_on_a_gallery_of_before(written: Path) -> None:
    gallery = Gallery.open(written / "gallery", ColourEncoder())
    of_camera = [hit for hit in gallery.search("a red coat", k=30) if hit.camera == "lobby"]
    assert {hit.id for hit in gallery.search("a red coat", k=30, where="camera = 'lobby'")} == {hit.id for hit in of_camera}
    younger = gallery.search("a red coat", k=30, where="age < 7 and seen = true")
    assert sorted(hit.attributes["age"] for hit in younger) == [0, 2, 6]  # 4 belongs to a person who was forgotten


def test_a_gallery_of_before_takes_more(written: Path) -> None:
    gallery = Gallery.open(written / "gallery", ColourEncoder())
    more = write_pictures(written / "more", 3, seed=7)
    before = len(gallery)
    report = gallery.add(more, [{"camera": "gate", "age": 40 + number} for number in range(3)])
    assert (report.added, len(gallery)) == (3, before + 3)
    assert len(gallery.search("a red coat", k=30, where="age >= 40")) == 3


def test_snapshot_and_rules_of_before(written: Path) -> None:
    folder = written / "gallery"
    assert [each.name for each in snapshots(folder)] == ["before"]
    assert dict(read_retention(folder).cameras) == {"lobby": 36500}
    restore(folder, "before")
    assert len(Gallery.open(folder, ColourEncoder())) == 16


def test_service_folder_of_before(written: Path) -> None:
    state = written / "gallery.service"
    verdict = verify(state)
    assert verdict.wrong is None
    assert verdict.lines >= 3
    assert [key.name for key in Keys(state).all()] == ["front desk", "lobby desk"]


def test_a_model_of_before_embeds_as_before(written: Path) -> None:
    model = load(written / "model")
    expected = np.load(written / "embeddings.npz")
    photos = [Image.open(path) for path in write_pictures(written / "photos", 24)[:2]]
    np.testing.assert_allclose(model.encode_images(photos), expected["images"], atol=1e-6)
    np.testing.assert_allclose(model.encode_texts(["a woman in a red coat"]), expected["texts"], atol=1e-6)
