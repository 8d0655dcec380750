"""Written data sets are reproducible and follow the published layouts; an interrupted write leaves none behind."""

import errno
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from PIL import Image

from tbps.data.mannequins import writing
from tbps.data.mannequins.layouts import LAYOUTS
from tbps.data.mannequins.people import attributes
from tbps.data.mannequins.population import population
from tbps.data.mannequins.writing import SplitSize, write_mannequins
from tbps.data.readers.catalog import read_dataset
from tbps.errors import SettingsError, StorageError

SMALL = {"train": SplitSize(6, 3), "val": SplitSize(3, 2), "test": SplitSize(4, 3)}
NO_VAL = {"train": SplitSize(6, 3), "test": SplitSize(4, 3)}


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def sizes_for(layout: str) -> dict[str, SplitSize]:
    return NO_VAL if layout == "icfg-pedes" else SMALL


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("layouts")
    for layout in LAYOUTS:
        write_mannequins(root / layout, sizes_for(layout), seed=3, layout=layout, workers=1)
    return {layout: root / layout for layout in LAYOUTS}


def records(folder: Path, name: str) -> list[dict]:
    return json.loads((folder / name).read_text())


def test_the_number_of_workers_does_not_change_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "POOL_FROM", 1)
    monkeypatch.setattr(writing, "CHUNK", 2)
    for workers in (1, 2):
        write_mannequins(tmp_path / str(workers), SMALL, seed=8, workers=workers)
    assert digest(tmp_path / "1") == digest(tmp_path / "2")


def test_another_seed_gives_other_people(tmp_path, written):
    write_mannequins(tmp_path / "other", SMALL, seed=4, workers=1)
    assert not set(digest(tmp_path / "other").values()) & set(digest(written["folder"]).values())


def test_folder_layout(written):
    rows = [json.loads(line) for line in (written["folder"] / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 18 + 6 + 12
    for row in rows:
        assert len(row["captions"]) == len(row["captions_bt"]) == len(row["mentions"]) == 2
        assert re.fullmatch(r"images/\d{6}\.jpg", row["file_name"])
        assert re.fullmatch(r"2025-\d\d-\d\dT\d\d:\d\d:\d\d", row["captured_at"])
        for said in row["mentions"]:
            assert all(row["attributes"][slot] in values for slot, values in said.items())
        assert row["attributes"]["view.direction"] == row["view"]["direction"]
        with Image.open(written["folder"] / row["file_name"]) as image:
            image.load()
            assert image.format == "JPEG" and image.mode == "RGB"


def test_an_identity_is_in_one_split_only(written):
    rows = [json.loads(line) for line in (written["folder"] / "metadata.jsonl").read_text().splitlines()]
    splits: dict[int, set[str]] = {}
    for row in rows:
        splits.setdefault(row["identity"], set()).add(row["split"])
    assert sorted(splits) == list(range(13)) and all(len(names) == 1 for names in splits.values())


def test_splits_of_a_large_population_are_disjoint():
    everyone = [frozenset(attributes(p).items()) for split in ("train", "val", "test") for p in population(1, split, 400)]
    assert len(set(everyone)) == len(everyone)


def test_cuhk_pedes_layout(written):
    rows = records(written["cuhk-pedes"], "reid_raw.json")
    assert {frozenset(row) for row in rows} == {frozenset({"split", "captions", "file_path", "processed_tokens", "id"})}
    assert {row["id"] for row in rows if row["split"] == "train"} == set(range(1, 7))
    assert {row["id"] for row in rows} == set(range(1, 14))
    assert all((written["cuhk-pedes"] / "imgs" / row["file_path"]).is_file() for row in rows)
    assert all(len(row["captions"]) == 2 == len(row["processed_tokens"]) for row in rows)


def test_icfg_pedes_layout(written):
    rows = records(written["icfg-pedes"], "ICFG-PEDES.json")
    assert {row["split"] for row in rows} == {"train", "test"} and {row["id"] for row in rows} == set(range(10))
    assert all(len(row["captions"]) == 1 for row in rows)
    assert all((written["icfg-pedes"] / "imgs" / row["file_path"]).is_file() for row in rows)


def test_rstpreid_layout(written):
    rows = records(written["rstpreid"], "data_captions.json")
    assert {frozenset(row) for row in rows} == {frozenset({"id", "img_path", "captions", "split"})}
    for row in rows:
        name = re.fullmatch(r"(\d{4})_c(\d+)_\d{4}\.jpg", row["img_path"])
        assert name and int(name[1]) == row["id"] and 1 <= int(name[2]) <= 15 and len(row["captions"]) == 2
        assert (written["rstpreid"] / "imgs" / row["img_path"]).is_file()


def test_tbps_layout(written):
    for split in ("train", "val", "test"):
        for row in records(written["tbps"], f"{split}_reid.json"):
            assert set(row) == {"file_path", "id", "captions"} | ({"captions_bt"} if split == "train" else set())
            assert (written["tbps"] / "imgs" / row["file_path"]).is_file()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_written_layouts_can_be_read(written, layout):
    dataset = read_dataset(layout, written[layout])
    images = {split: len(dataset.split(split).images) for split in ("train", "val", "test")}
    assert images["test"] == 12 and sum(images.values()) == sum(
        size.identities * size.images_per_identity for size in sizes_for(layout).values()
    )


def test_progress_reaches_the_total(tmp_path):
    seen: list[tuple[int, int]] = []
    write_mannequins(tmp_path / "a", NO_VAL, seed=1, workers=1, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (30, 30) and seen == sorted(seen)


def test_the_same_data_set_is_kept_and_another_is_refused(tmp_path, written):
    before = digest(written["folder"])
    again = write_mannequins(written["folder"], dict(reversed(SMALL.items())), seed=3, workers=1)
    assert not again.fresh and digest(written["folder"]) == before
    with pytest.raises(StorageError, match=r"other mannequins.*choose another folder"):
        write_mannequins(written["folder"], SMALL, seed=5, workers=1)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(StorageError, match="something else"):
        write_mannequins(tmp_path, SMALL, seed=3, workers=1)
    with pytest.raises(StorageError, match="is a file"):
        write_mannequins(tmp_path / "letter.txt", SMALL, seed=3, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "new").mkdir()
    assert write_mannequins(tmp_path / "new", NO_VAL, seed=1, workers=1).fresh


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {}}, "no split"),
        ({"splits": {"train": SplitSize(0, 4)}}, "at least 1"),
        ({"splits": {"train": SplitSize(4, -1)}}, "at least 1"),
        ({"splits": {"dev": SplitSize(4, 1)}}, "'dev'"),
        ({"layout": "icfg-pedes"}, "no split 'val'"),
        ({"layout": "voc"}, "folder, cuhk-pedes"),
        ({"seed": -1}, "-1"),
        ({"workers": 0}, "at least 1"),
    ],
)
def test_invalid_requests_are_refused_and_leave_no_files(tmp_path, changes, message):
    with pytest.raises(SettingsError, match=message):
        write_mannequins(**{"folder": tmp_path / "a", "splits": SMALL, "seed": 0, "workers": 1} | changes)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_files(tmp_path, monkeypatch):
    wrote = []

    def full(path: Path, content: bytes) -> int:
        wrote.append(path)
        if len(wrote) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return len(content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="full"):
        write_mannequins(tmp_path / "a", SMALL, seed=0, workers=1)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file with that name exists"):
        write_mannequins(tmp_path / "file" / "below", SMALL, seed=0, workers=1)
    if os.geteuid() == 0:
        return  # root may write everywhere
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="cannot be written"):
        write_mannequins(tmp_path / "locked" / "a", SMALL, seed=0, workers=1)


def test_kill_leaves_no_data_set_and_the_next_run_cleans_up(tmp_path):
    target = tmp_path / "people"
    script = f"""
        from pathlib import Path
        from tbps.data.mannequins.writing import SplitSize, write_mannequins
        write_mannequins(Path({str(target)!r}), {{"train": SplitSize(400, 4)}}, seed=0, workers=1)
    """
    run = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(".people.*.part/images/*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert list(tmp_path.glob(".people.*.part")) and not target.exists()
    write_mannequins(target, NO_VAL, seed=0, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["people"]


def test_names_numbers_and_capture_times_do_not_reveal_the_identity(tmp_path):
    """Images are shuffled over the whole set, and near-twins do not have consecutive identities."""
    write_mannequins(tmp_path / "a", {"test": SplitSize(30, 3)}, seed=2, workers=1)
    rows = [json.loads(line) for line in (tmp_path / "a" / "metadata.jsonl").read_text().splitlines()]
    follows = sum(one["identity"] == other["identity"] for one, other in itertools.pairwise(rows))
    assert follows < 10
    gender = {row["identity"]: row["attributes"]["gender"] for row in rows}
    made = [person.gender for person in population(2, "test", 30)]
    assert [gender[number] for number in range(30)] != made
