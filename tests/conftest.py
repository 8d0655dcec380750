"""Shared fixtures (a small random model, a data set that it learns in seconds) and the order in which tests run."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

from tests.support.costs import Costs, arrange, recorded

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "green": (30, 160, 40), "yellow": (230, 220, 40)}

# The machine may be busy, so Hypothesis must not fail an example because it took long.
hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-costs", type=Path, metavar="FILE", help="write the list of slow tests (tests/support/costs.py)")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Costs(config.getoption("record_costs")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    arrange(items, recorded())


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps decoded images of the tests, and of commands that they start, out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TBPS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def run_tbps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Function that runs `tbps` with arguments in this process; `answer` is its standard input.

    Returns exit code, standard output, standard error. A new process per command would take seconds to start.
    """
    from tbps.cli import main

    monkeypatch.delenv("TBPS_MODEL", raising=False)

    def run(*arguments: object, answer: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tbps", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder of a CLIP with random weights: images of 32 x 32 pixels, two narrow layers per tower, a small vocabulary."""
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


@pytest.fixture(scope="session")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set in the `folder` layout: three splits of 16 people, who are drawn as two coloured halves in three images each."""
    folder = tmp_path_factory.mktemp("flags")
    rng = np.random.default_rng(0)
    lines = []
    people = [(top, bottom) for top in COLOURS for bottom in COLOURS]
    for split in ("train", "val", "test"):
        for identity, (top, bottom) in enumerate(people):
            for number in range(3):
                pixels = np.zeros((40, 20, 3))
                pixels[:20], pixels[20:] = COLOURS[top], COLOURS[bottom]
                noisy = np.clip(pixels + rng.normal(0, 10, pixels.shape), 0, 255).astype(np.uint8)
                name = f"{split}-{identity}-{number}.png"
                Image.fromarray(noisy).save(folder / name)
                caption = f"a person with a {top} top and {bottom} trousers"
                paraphrase = f"{bottom} trousers and a {top} top are worn"
                row = {"file_name": name, "captions": [caption], "captions_bt": [paraphrase], "split": split}
                lines.append(json.dumps(row | {"identity": f"{split}{identity}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder
