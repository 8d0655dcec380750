"""Fixtures that several rooms share: a small randomly initialised model in a folder."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# No test measures time: neither that of an example nor that of making one.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images of the tests stay out of the user's cache, also those of commands that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TBPS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of 32 x 32 pixels and two thin layers a tower, random weights, its own vocabulary, saved as a model folder."""
    from tbps.model.bundle import PersonModel
    from tbps.model.clip import ModelShape, TowerShape, build
    from tbps.model.tokens import train_tokenizer
    from tbps.preprocess.image import CLIP_MEAN, CLIP_STD, ImageSpec

    captions = ["the man wears a navy jacket and black trousers", "a woman in a red coat with a black backpack"] * 20
    tokenizer = train_tokenizer(captions, 600)
    tower = TowerShape(width=32, layers=2, heads=2)
    shape = ModelShape(image=tower, text=tower, image_size=32, patch=8, vocabulary=len(tokenizer), embedding=16)
    spec = ImageSpec(height=32, width=32, mean=CLIP_MEAN, std=CLIP_STD)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    PersonModel(build(shape, seed=0), tokenizer, spec, name="tiny").save(folder)
    return folder
