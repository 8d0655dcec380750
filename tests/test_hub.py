"""Finding a model by its folder or hub id: local folders, the hub's cache, and errors that say how to download it."""

from pathlib import Path

import pytest

from tbps.errors import ModelError
from tbps.hub import model_folder


def find(model: str | Path) -> Path:
    return model_folder(model, ["config.json", "*.spm"], "model", "someone/some-model")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_local_folder_is_used(tmp_path: Path) -> None:
    assert find(tmp_path) == find(str(tmp_path)) == tmp_path


def test_an_id_is_found_in_the_cache(cache: Path) -> None:
    repository = cache / "models--someone--some-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "config.json").write_text("{}")
    assert (find("someone/some-model") / "config.json").read_text() == "{}"


@pytest.mark.parametrize("name", ["models/none", "./none", "none", "a/b/c", "x" * 300, "someone/" + "y" * 300 + "?"])
def test_names_that_are_neither_folder_nor_id_are_refused(cache: Path, name: str) -> None:
    with pytest.raises(ModelError, match="does not exist; give a folder or a Hugging Face id like someone/some-model"):
        find(name)


def test_an_unreachable_hub_names_the_download_command(cache: Path) -> None:
    with pytest.raises(ModelError, match=r"`hf download someone/some-model --local-dir models/some-model`"):
        find("someone/some-model")
