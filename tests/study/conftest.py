"""A very small data set of mannequins."""

from pathlib import Path

import pytest

from tbps.study.plan import Material, open_material


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set of mannequins: 16 for training, four for validation, six for testing, two images each."""
    from tbps.data.mannequins.writing import SplitSize, write_mannequins

    folder = tmp_path_factory.mktemp("people") / "mannequins"
    write_mannequins(folder, {"train": SplitSize(16, 2), "val": SplitSize(4, 2), "test": SplitSize(6, 2)}, seed=3, workers=1)
    return folder


@pytest.fixture(scope="session")
def material(people: Path, tiny_model_folder: Path) -> Material:
    return open_material("folder", people, str(tiny_model_folder), "cpu")
