"""`tbps data backtranslate` with tiny random MarianMT models."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tbps.data.augment.back_translation import MarianTranslator
from tbps.data.readers.catalog import read_dataset
from tests.support.tiny_marian import ENGLISH, FRENCH, write_marian

Run = Callable[..., tuple[int, str, str]]
GARMENTS = ("red coat", "white shirt", "grey jacket", "blue jeans", "black bag")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the models en-fr and fr-en, and fr-mute, which gives empty translations."""
    folder = tmp_path_factory.mktemp("marian")
    write_marian(folder / "en-fr", ENGLISH, FRENCH, seed=2)
    write_marian(folder / "fr-en", FRENCH, ENGLISH, seed=3)
    write_marian(folder / "fr-mute", FRENCH, ENGLISH, seed=3, mute=True)
    return folder


def photographs(root: Path, count: int = 6) -> Path:
    """Data set in the `folder` layout with ten distinct captions; every third image is in the test split."""
    root.mkdir()
    lines = []
    for number in range(count):
        Image.new("RGB", (4, 8)).save(root / f"{number}.png")
        caption = f"A man in a {GARMENTS[number % 5]}, number {number % 10}."
        split = "test" if number % 3 == 2 else "train"
        lines.append(json.dumps({"file_name": f"{number}.png", "caption": caption, "split": split, "identity": number}))
    (root / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return root


def verb(models: Path, root: Path, data: str = "folder", backward: str = "fr-en") -> list[object]:
    given = ["--data", data, "--root", root, "--forward", models / "en-fr", "--backward", models / backward]
    return ["data", "backtranslate", *given, "--batch-size", 2, "--beams", 2]


def test_train_captions_get_paraphrases_in_a_new_file(run: Run, models: Path, tmp_path: Path) -> None:
    root = photographs(tmp_path / "photos", 12)
    original = (root / "metadata.jsonl").read_bytes()
    code, out, err = run(*verb(models, root))
    written = root / "metadata.back_translated.jsonl"
    assert code == 0, err
    assert f"8 captions of 7 wordings paraphrased in {written}" in out
    assert "translating" in err and "7/7" in err and "captions/s" in err
    assert (root / "metadata.jsonl").read_bytes() == original
    following = out.splitlines()[-1].partition(": ")[2]
    subprocess.run(following, shell=True, check=True)
    images = read_dataset("folder", root).images
    captions = [image.captions for image in images if image.captions_bt]
    there, back = (MarianTranslator(str(models / name), beams=2) for name in ("en-fr", "fr-en"))
    for image in images:
        if image.captions_bt:
            assert image.captions_bt == tuple(back(there(image.captions))) or image.captions_bt == image.captions
    assert len(captions) == 8
    assert len({image.captions_bt for image in images}) > 3


def test_a_second_run_needs_no_model_and_writes_the_same(run: Run, models: Path, tmp_path: Path) -> None:
    root = photographs(tmp_path / "photos")
    gone = ["data", "backtranslate", "--data", "folder", "--root", root, "--out", tmp_path / "new" / "b.jsonl"]
    names = ["--forward", models / "en-fr", "--backward", models / "fr-en", "--beams", 2]
    assert run(*gone, *names)[0] == 0
    first = (tmp_path / "new" / "b.jsonl").read_bytes()
    (tmp_path / "new" / "b.jsonl").unlink()
    moved = (models / "en-fr").rename(models / "away")
    try:
        assert run(*gone, *names)[0] == 0
    finally:
        moved.rename(models / "en-fr")
    assert (tmp_path / "new" / "b.jsonl").read_bytes() == first
    code, _, err = run(*gone, *names[:-1], 3)
    assert code == 2 and "was begun with" in err and len(err.strip().splitlines()) == 1


def test_empty_translations_are_replaced_by_the_caption(run: Run, models: Path, tmp_path: Path) -> None:
    root = photographs(tmp_path / "photos")
    code, out, err = run(*verb(models, root, backward="fr-mute"))
    assert code == 0, err
    assert "4 came back without a word and keep the caption" in out
    lines = [json.loads(line) for line in (root / "metadata.back_translated.jsonl").read_text().splitlines()]
    assert all(line["captions_bt"] == [line["caption"]] for line in lines if line["split"] == "train")
    assert all("captions_bt" not in line for line in lines if line["split"] == "test")


def test_a_published_format_gets_paraphrases(run: Run, models: Path, tmp_path: Path) -> None:
    root = tmp_path / "CUHK PEDES"
    (root / "imgs").mkdir(parents=True)
    records = []
    for number, split in enumerate(("train", "train", "val", "test")):
        Image.new("RGB", (4, 8)).save(root / "imgs" / f"{number}.png")
        captions = [f"A man in a {GARMENTS[number]}.", "A woman with a backpack."]
        records.append({"split": split, "captions": captions, "file_path": f"{number}.png", "id": number + 1})
    (root / "reid_raw.json").write_text(json.dumps(records))
    code, out, err = run(*verb(models, root, "cuhk-pedes"))
    assert code == 0, err
    assert "4 captions of 3 wordings" in out and f"--data tbps --root '{root}'" in out
    opened = read_dataset("tbps", root)
    assert [len(opened.split(split).images) for split in ("train", "val", "test")] == [2, 1, 1]
    assert all(len(image.captions_bt) == 2 for image in opened.split("train").images)
    assert opened.images[0].captions_bt[1] == opened.images[1].captions_bt[1]
    assert run(*verb(models, root, "cuhk-pedes"))[0] == 0
    (root / "val_reid.json").write_text("[]")
    code, _, err = run(*verb(models, root, "cuhk-pedes"))
    assert code == 2 and "val_reid.json exists and was not written by this command" in err


def test_errors_are_one_line_and_raised_before_translating(run: Run, models: Path, tmp_path: Path) -> None:
    root = photographs(tmp_path / "photos")
    original = (root / "metadata.jsonl").read_bytes()
    stranger = tmp_path / "notes.txt"
    stranger.write_text("mine")
    for more, message in (
        (["--out", root / "metadata.jsonl"], "never overwritten"),
        (["--out", stranger], "notes.txt exists and was not written by this command"),
        (["--forward", tmp_path / "none"], "does not exist"),
        (["--backward", root], "config.json is missing"),
        (["--data", "foldr"], "did you mean 'folder'"),
    ):
        code, _, err = run(*verb(models, root), *more)
        assert code == 2 and message in err
        assert err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert stranger.read_text() == "mine" and (root / "metadata.jsonl").read_bytes() == original
    assert sorted(path.suffix for path in root.iterdir()) == [".jsonl", *[".png"] * 6]


# A command that is killed while it writes a line, after the batch with which the journal has more than six captions.
DYING = """
import os, signal
from tbps.cli import main
from tbps.data import Journal

add = Journal.add

def add_and_die(self, translated):
    add(self, translated)
    if len(self.known) > 6:
        with self.file.open("ab") as stream:
            stream.write(b'{"caption": "a man in')
        os.kill(os.getpid(), signal.SIGKILL)

Journal.add = add_and_die
main()
"""


def test_a_killed_run_can_be_resumed_with_the_same_result(run: Run, models: Path, tmp_path: Path) -> None:
    whole, killed = photographs(tmp_path / "whole", 60), photographs(tmp_path / "killed", 60)
    for root in (whole, killed):
        text = (root / "metadata.jsonl").read_text().splitlines()
        different = [line.replace("number ", f"number {number}, ") for number, line in enumerate(text)]
        (root / "metadata.jsonl").write_text("\n".join(different))
    assert run(*verb(models, whole))[0] == 0
    journal = killed / "metadata.back_translated.jsonl.journal"
    process = subprocess.run([sys.executable, "-c", DYING, *map(str, verb(models, killed))], check=False)
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "metadata.back_translated.jsonl").exists()
    kept = journal.read_bytes()
    assert 6 < kept.count(b"\n") < 41 and not kept.endswith(b"\n")
    assert run(*verb(models, killed))[0] == 0
    assert journal.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
    assert (killed / "metadata.back_translated.jsonl").read_bytes() == (whole / "metadata.back_translated.jsonl").read_bytes()
    assert not [name for name in os.listdir(killed) if name.endswith(".part")]
