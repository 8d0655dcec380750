"""Readers of all layouts, on small data sets in which each test damages one place."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tbps.data.readers.catalog import names, read_dataset
from tbps.data.records import PersonDataset
from tbps.errors import AnnotationError, DataError

Records = list[Any]


@dataclass(frozen=True)
class Made:
    """A data set on disk: the records of its annotation file, and a function that writes changed records."""

    name: str
    root: Path
    file: str
    path_field: str
    images: str
    records: Records

    def write(self, change: Callable[[Records], object] = lambda records: None) -> PersonDataset:
        records = json.loads(json.dumps(self.records))
        change(records)
        text = "\n".join(map(json.dumps, records)) if self.file.endswith("jsonl") else json.dumps(records)
        (self.root / self.file).write_text(text)
        return read_dataset(self.name, self.root)


LAYOUTS = {
    "cuhk-pedes": ("reid_raw.json", "file_path", "imgs"),
    "icfg-pedes": ("ICFG-PEDES.json", "file_path", "imgs"),
    "rstpreid": ("data_captions.json", "img_path", "imgs"),
    "ufine6926": ("UFine6926_Annotations_1024.json", "file_path", "imgs"),
    "tbps": ("train_reid.json", "file_path", "imgs"),
    "folder": ("metadata.jsonl", "file_name", "."),
}

SPLIT_OF = ["train", "train", "train", "val", "test"]


@pytest.fixture(params=LAYOUTS)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    return make(request.param, tmp_path)


def make(name: str, root: Path) -> Made:
    """Writes five people with two images each and two captions per image; TBPS-CLIP's file holds the three people of train."""
    file, path_field, images = LAYOUTS[name]
    (root / images).mkdir(exist_ok=True)
    records: Records = []
    for person, split in enumerate(SPLIT_OF):
        for view in range(2):
            path = f"{person:04d}_c{view + 1}_{view:04d}.jpg"
            Image.new("RGB", (8, 16), (person * 40, view * 90, 7)).save(root / images / path)
            record = {path_field: path, "captions": [f"person {person} seen from {view}", f"again {person} {view}"]}
            record |= {"identity": f"p{person}"} if name == "folder" else {"id": person + 1}
            record |= {} if name == "tbps" else {"split": split}
            records.append(record)
    return Made(name, root, file, path_field, images, records[:6] if name == "tbps" else records)


def test_the_catalog_knows_every_layout() -> None:
    assert set(names()) == set(LAYOUTS)
    with pytest.raises(DataError, match="did you mean 'cuhk-pedes'"):
        read_dataset("CUHK_PEDES", Path())


def test_images_have_the_values_of_their_records(made: Made) -> None:
    dataset = made.write()
    assert dataset.name == made.name
    assert [image.captions[0] for image in dataset.images] == [record["captions"][0] for record in made.records]
    assert len({image.identity for image in dataset.images}) == len(made.records) // 2
    for image, record in zip(dataset.images, made.records, strict=True):
        assert image.path == (made.root / made.images / record[made.path_field]).resolve()
        assert image.path.is_file()
    if made.name != "tbps":
        assert [image.split for image in dataset.images] == [split for split in SPLIT_OF for _ in range(2)]
        assert len(dataset.split("train").pairs()) == 12


def set_in(index: int, field: str, value: object) -> Callable[[Records], None]:
    return lambda records: records[index].__setitem__(field, value)


@pytest.mark.parametrize("bad", [[], "a man", None, ["fine", ""], ["fine", "  "], ["fine", "..."], ["fine", 3], {}])
def test_bad_captions(made: Made, bad: object) -> None:
    with pytest.raises(AnnotationError, match=rf"{made.file}: (record 3|line 4).*'captions'"):
        made.write(set_in(3, "captions", bad))


@pytest.mark.parametrize("bad", ["../outside.jpg", "/etc/passwd", "a/../../b.jpg", "", 3, None, "\ud83d.jpg", "\ud83d/a.jpg", "\0"])
def test_bad_paths(made: Made, bad: object) -> None:
    with pytest.raises(AnnotationError, match=rf"{made.file}: (record 2|line 3).*'{made.path_field}'"):
        made.write(set_in(2, made.path_field, bad))


def test_a_link_out_of_the_root_is_refused(made: Made, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.jpg"
    outside.write_bytes(b"")
    (made.root / made.images / "link.jpg").symlink_to(outside)
    with pytest.raises(AnnotationError, match="leaves the folder"):
        made.write(set_in(0, made.path_field, "link.jpg"))


def test_missing_images_are_counted_and_the_first_is_named(made: Made) -> None:
    for index in (1, 4):
        (made.root / made.images / made.records[index][made.path_field]).unlink()
    expected = rf"2 of {len(made.records)} image files are missing, the first at (record 1|line 2): .*0000_c2_0001\.jpg"
    with pytest.raises(AnnotationError, match=expected):
        made.write()


def test_a_name_that_is_too_long_for_a_file_counts_as_missing(made: Made) -> None:
    with pytest.raises(AnnotationError, match=r"1 of .* image files are missing, the first at (record 2|line 3): "):
        made.write(set_in(2, made.path_field, "a" * 5000))


@pytest.mark.parametrize("bad", ["training", "", 1, True, ["train"]])
def test_bad_splits(made: Made, bad: object) -> None:
    if made.name == "tbps":
        pytest.skip("the split is in the file name")
    with pytest.raises(AnnotationError, match=r"(record 5|line 6), field 'split': .* none of train, val, test"):
        made.write(set_in(5, "split", bad))


@pytest.mark.parametrize("bad", [-1, True, 1.5, [1]])
def test_bad_identities(made: Made, bad: object) -> None:
    field = "identity" if made.name == "folder" else "id"
    with pytest.raises(AnnotationError, match=rf"(record 5|line 6), field '{field}': expected"):
        made.write(set_in(5, field, bad))


def test_identities_fit_into_64_bits(made: Made) -> None:
    if made.name == "folder":
        assert made.write(set_in(5, "identity", 2**70)).images[5].identity == 3  # renumbered
        return
    with pytest.raises(AnnotationError, match=r"record 5, field 'id': expected a whole number from 0 to 9223372036854775807"):
        made.write(set_in(5, "id", 2**63))


def test_an_identity_in_two_splits_is_refused(made: Made) -> None:
    if made.name == "tbps":
        made.write()
        (made.root / "test_reid.json").write_text(json.dumps([made.records[2]]))
        with pytest.raises(AnnotationError, match=r"test_reid\.json: record 0.*identity 2 is in test, but in train at .*record 2"):
            read_dataset("tbps", made.root)
        return
    with pytest.raises(
        AnnotationError,
        match=r"(record 5|line 6), field 'split': .* in test, but in train at .*(record 4|line 5) \(0002_c2_0001.jpg and 0002_c1_",
    ):
        made.write(set_in(5, "split", "test"))


@pytest.mark.parametrize("bad", [["one"], [], ["one", ""], "one", ["a", "b", "c"]])
def test_paraphrases_must_be_aligned(made: Made, bad: object) -> None:
    with pytest.raises(AnnotationError, match=r"(record 1|line 2), field 'captions_bt'"):
        made.write(set_in(1, "captions_bt", bad))
    assert made.write(set_in(1, "captions_bt", ["first", "second"])).images[1].captions_bt == ("first", "second")


@pytest.mark.parametrize("field", ["path", "id", "captions", "split"])
def test_missing_fields_are_named(made: Made, field: str) -> None:
    if made.name == "folder" and field in {"id", "split"}:
        pytest.skip("optional in a folder")
    if made.name == "tbps" and field == "split":
        pytest.skip("the split is in the file name")
    key = made.path_field if field == "path" else field
    with pytest.raises(AnnotationError, match=rf"(record 4|line 5), field '{key}'"):
        made.write(lambda records: records[4].pop(key))


def test_records_of_the_wrong_kind(made: Made) -> None:
    with pytest.raises(AnnotationError, match=r"(record 1|line 2): expected a JSON object, found"):
        made.write(lambda records: records.__setitem__(1, ["no"]))
    with pytest.raises(AnnotationError, match="no record"):
        made.write(list.clear)
    for content in (b"{", b"\xff\xfe{}", b'{"a": 1}', b"[" * 100_000):
        (made.root / made.file).write_bytes(content)
        with pytest.raises(AnnotationError, match=made.file.replace(".", r"\.")):
            read_dataset(made.name, made.root)


def test_missing_files_and_folders_are_explained(made: Made) -> None:
    with pytest.raises(AnnotationError, match="is not a folder"):
        read_dataset(made.name, made.root / "nowhere")
    with pytest.raises(AnnotationError, match=f"holds no {made.file}"):
        read_dataset(made.name, made.root)


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_error_for_the_parent_folder_names_the_right_one(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    make(name, inside).write()
    with pytest.raises(AnnotationError, match=rf"holds no .*there is one in {inside}: give that folder"):
        read_dataset(name, tmp_path)


def test_unusual_captions_are_kept_as_they_are(made: Made) -> None:
    texts = ["word " * 500, "一个穿红色外套的女人 👍 \u0007"]
    assert made.write(set_in(0, "captions", texts)).images[0].captions == tuple(texts)


def test_captions_shared_by_two_identities_are_counted(made: Made) -> None:
    dataset = made.write(set_in(0, "captions", made.records[3]["captions"]))
    assert "2 captions are worded the same on more than one identity" in dataset.warnings


# One layout at a time


def test_older_cuhk_pedes_release_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "caption_all.json").write_text("[]")
    with pytest.raises(AnnotationError, match=r"caption_all\.json is the older release without splits; get reid_raw\.json"):
        read_dataset("cuhk-pedes", tmp_path)


def test_published_counts_are_compared(tmp_path: Path) -> None:
    warnings = make("cuhk-pedes", tmp_path).write().warnings
    for text in (
        "train: 3 identities, published 11,003",
        "train: 6 images, published 34,054",
        "train: 12 captions, published 68,126",
        "val: 1 identities, published 1,000",
        "test: 4 captions, published 6,156",
    ):
        assert text in warnings


def test_matching_counts_give_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tbps.data.readers import cuhk_pedes
    from tbps.data.readers.annotations import Published

    right = Published({"train": 3, "val": 1, "test": 1}, {"train": 6, "val": 2, "test": 2}, {"train": 12, "val": 4, "test": 4})
    monkeypatch.setattr(cuhk_pedes, "PUBLISHED", right)
    assert make("cuhk-pedes", tmp_path).write().warnings == ()


def test_icfg_pedes_file_has_two_spellings(tmp_path: Path) -> None:
    made = make("icfg-pedes", tmp_path)
    made.write()
    (tmp_path / "ICFG-PEDES.json").rename(tmp_path / "ICFG_PEDES.json")
    assert len(read_dataset("icfg-pedes", tmp_path).images) == 10


@pytest.mark.parametrize("name", ["icfg-pedes", "ufine6926", "folder", "tbps"])
def test_val_is_taken_from_train_by_identity(name: str, tmp_path: Path) -> None:
    people = 40
    made = make(name, tmp_path)
    record = made.records[0]
    key = "identity" if name == "folder" else "id"
    many = [record | {key: person // 3, made.path_field: f"{person}.jpg"} for person in range(3 * people)]
    for person in range(3 * people):
        Image.new("RGB", (2, 2)).save(tmp_path / made.images / f"{person}.jpg")
    change: Callable[[Records], None] = lambda records: records.__setitem__(slice(None), many)  # noqa: E731
    first, second = made.write(change), made.write(change)
    assert first == second
    assert len(first.split("val").images) == 4 * 3  # a tenth of 40 identities
    val, train = ({image.identity for image in first.split(split).images} for split in ("val", "train"))
    assert len(val) == 4
    assert not val & train
    assert "no val split: 4 identities with 12 images were moved from train to val" in first.warnings


def test_val_takes_at_most_200_identities(tmp_path: Path) -> None:
    made = make("icfg-pedes", tmp_path)
    many = [made.records[0] | {"id": person} for person in range(3102)]
    dataset = made.write(lambda records: records.__setitem__(slice(None), many))
    assert len(dataset.split("val").images) == 200
    assert "3,101 records repeat an image file of an earlier record" in dataset.warnings


def test_rstpreid_cameras_and_code(tmp_path: Path) -> None:
    made = make("rstpreid", tmp_path)
    dataset = made.write(set_in(0, "captions", ["a man </div>", "var x = function() {}"]))
    assert [image.camera for image in dataset.images] == ["c1", "c2"] * 5
    assert "2 cameras, published 15" in dataset.warnings
    assert "2 captions seem to contain fragments of program code" in dataset.warnings


def test_rstpreid_faulty_release_is_recognised(tmp_path: Path) -> None:
    made = make("rstpreid", tmp_path)
    splits = ["train"] * 3901 + ["val"] * 100 + ["test"] * 100
    many = [made.records[0] | {"id": person, "split": split} for person, split in enumerate(splits)]
    dataset = made.write(lambda records: records.__setitem__(slice(None), many))
    assert dataset.warnings[0].startswith("this is the faulty early release (3,901/100/100 identities)")
    assert not any("faulty" in warning for warning in made.write().warnings)


def test_ufine_counts_captions_that_are_cut(tmp_path: Path) -> None:
    made = make("ufine6926", tmp_path)
    dataset = made.write(set_in(0, "captions", ["word " * 76, "word " * 75]))
    assert "1 of 20 captions have more than 75 words: a context of 77 tokens cuts them" in dataset.warnings
    assert "5 identities, published 6,926" in dataset.warnings


def test_tbps_files_are_joined_and_identities_renumbered(tmp_path: Path) -> None:
    made = make("tbps", tmp_path)
    made.write(lambda records: [record.update(id=record["id"] * 100) for record in records])
    test = [made.records[0] | {"id": 7}, made.records[1] | {"id": 7}]
    (tmp_path / "test_reid.json").write_text(json.dumps(test))
    (tmp_path / "val_reid.json").write_text(json.dumps([made.records[0] | {"id": 9}]))
    dataset = read_dataset("tbps", tmp_path)
    assert [image.identity for image in dataset.images] == [0, 0, 1, 1, 2, 2, 3, 4, 4]
    assert [image.split for image in dataset.images] == ["train"] * 6 + ["val"] + ["test"] * 2


def test_folder_defaults_labels_and_attributes(tmp_path: Path) -> None:
    for name in "abcd":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    lines = [
        {
            "file_name": "a.png",
            "caption": "a man",
            "identity": "x",
            "camera": 3,
            "captured_at": "2024-05-01T10:00:00",
            "hat": True,
        },
        {"file_name": "b.png", "caption": "a man", "identity": 7},
        {"file_name": "c.png", "captions": ["one", "two"], "identity": "7", "camera": None},
        {"file_name": "d.png", "caption": "nobody else"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    a, b, c, d = read_dataset("folder", tmp_path).images
    assert [image.identity for image in (a, b, c, d)] == [0, 1, 1, 2]
    assert {image.split for image in (a, b, c, d)} == {"test"}
    assert (a.camera, a.captured_at, dict(a.attributes)) == ("3", "2024-05-01T10:00:00", {"hat": True})
    assert (c.camera, c.captions, dict(c.attributes)) == (None, ("one", "two"), {})


def test_folder_refuses_duplicates_in_any_spelling(tmp_path: Path) -> None:
    made = make("folder", tmp_path)
    with pytest.raises(AnnotationError, match=r"line 5, field 'file_name': repeats './0000_c1_0000\.jpg' of line 1"):
        made.write(set_in(4, "file_name", "./0000_c1_0000.jpg"))


def test_folder_keeps_every_value_of_a_column_with_its_type(tmp_path: Path) -> None:
    columns = [
        {"a": "x", "b": ["x", "y"], "c": {"x": ["x"], "y": []}, "d": [1, True, 1.0, None], "e": [["x"], "x"], "f": 1},
        {"a": ["x"], "b": "x", "c": {"x": ["x", "y"], "y": [[]]}, "d": [1.0, 1, True], "e": [{"x": "y"}], "f": True, "x": 1.0},
        {"a": "x", "b": ["y", "x"], "c": {"y": []}, "d": [], "e": ["1", 1], "f": 1.0, "x": ""},
    ]
    for number, row in enumerate(columns):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
        row |= {"file_name": f"{number}.png", "caption": "a man"}
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, columns)))
    images = read_dataset("folder", tmp_path).images
    read = [json.dumps(dict(image.attributes), sort_keys=True) for image in images]
    given = [{key: value for key, value in row.items() if key not in ("file_name", "caption")} for row in columns]
    assert read == [json.dumps(row, sort_keys=True) for row in given]
    assert images[0].attributes["a"] is images[2].attributes["a"]  # one text in memory for all images


def ufine(root: Path, paths: list[str], base: str) -> Path:
    """Makes a UFine6926 with these paths, relative to `base`."""
    records = []
    for number, path in enumerate(paths):
        file = root / base / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16), (number, 9, 7)).save(file)
        split = "train" if number < 4 else "test"
        records.append({"split": split, "id": number // 2 + 1, "file_path": path, "captions": ["a man", "a tall man"]})
    (root / "UFine6926_Annotations_1024.json").write_text(json.dumps(records))
    return root


@pytest.mark.parametrize("base", [".", "imgs"])
@pytest.mark.parametrize("folder", ["images/", ""])
def test_ufine_paths_are_relative_to_the_root_as_published_or_to_imgs(tmp_path: Path, base: str, folder: str) -> None:
    root = ufine(tmp_path / "UFine6926", [f"{folder}{number}.jpg" for number in range(1, 7)], base)
    dataset = read_dataset("ufine6926", root)
    assert [image.path for image in dataset.images] == [(root / base / f"{folder}{n}.jpg").resolve() for n in range(1, 7)]
    assert [len(dataset.split(name).images) for name in ("train", "val", "test")] == [2, 2, 2], "val is taken from train"


def test_ufine_with_both_folders_uses_the_one_with_the_images(tmp_path: Path) -> None:
    root = ufine(tmp_path, [f"images/{number}.jpg" for number in range(1, 7)], ".")
    (root / "imgs").mkdir()
    assert read_dataset("ufine6926", root).images[0].path == root / "images" / "1.jpg"


def test_ufine_counts_are_those_published(tmp_path: Path) -> None:
    dataset = read_dataset("ufine6926", ufine(tmp_path, [f"images/{number}.jpg" for number in range(1, 7)], "."))
    assert dataset.warnings[:3] == (
        "3 identities, published 6,926",
        "6 images, published 26,206",
        "12 captions, published 52,412",
    )


CUHK_FOLDERS = ("cam_a", "cam_b", "CUHK01", "CUHK03", "Market", "test_query", "train_query")


@pytest.fixture
def cuhk(tmp_path: Path) -> Path:
    """Makes a CUHK-PEDES with seven folders, two people per folder, two images per person; the last person of each folder is in
    test.
    """
    records = []
    for number, folder in enumerate(CUHK_FOLDERS):
        (tmp_path / "imgs" / folder).mkdir(parents=True)
        for view in range(4):
            name = f"{folder}/{view}.png"
            Image.new("RGB", (8, 16), (number, view, 7)).save(tmp_path / "imgs" / name)
            person, split = 2 * number + view // 2 + 1, "test" if view > 1 else "train" if number < 5 else "val"
            records.append({"file_path": name, "id": person, "split": split, "captions": [f"person {person}"]})
    (tmp_path / "reid_raw.json").write_text(json.dumps(records))
    return tmp_path


def test_missing_folders_are_named_and_counted(cuhk: Path) -> None:
    shutil.rmtree(cuhk / "imgs" / "CUHK03")
    shutil.rmtree(cuhk / "imgs" / "Market")
    (cuhk / "imgs" / "cam_a" / "3.png").unlink()
    with pytest.raises(AnnotationError) as raised:
        read_dataset("cuhk-pedes", cuhk)
    told = str(raised.value)
    assert "9 of 28 image files are missing" in told and "add --allow-missing" in told
    assert "imgs/CUHK03 (the folder, with 4 files), imgs/Market (the folder, with 4 files), imgs/cam_a (1 of 4 files)" in told
    dataset = read_dataset("cuhk-pedes", cuhk, allow_missing=True)
    assert len(dataset.images) == 19 and all(image.path.exists() for image in dataset.images)
    assert dataset.warnings[0].startswith("9 of 28 image files are missing and were left out; missing: imgs/CUHK03")
    assert "train: 6 images, published 34,054" in dataset.warnings


def test_a_data_set_without_any_image_file_is_refused_even_with_allow_missing(made: Made) -> None:
    for file in (made.root / made.images).rglob("*.jpg"):
        file.unlink()
    for allowed in (False, True):
        with pytest.raises(AnnotationError, match="no image is left"):
            (made.root / made.file).write_text(
                "\n".join(map(json.dumps, made.records)) if made.file.endswith("jsonl") else json.dumps(made.records)
            )
            read_dataset(made.name, made.root, allow_missing=allowed)


def test_every_reader_leaves_out_missing_images_and_counts_them(made: Made) -> None:
    made.write()
    (made.root / made.images / made.records[1][made.path_field]).unlink()
    with pytest.raises(AnnotationError, match=r"1 of .* image files are missing, the first at"):
        read_dataset(made.name, made.root)
    dataset = read_dataset(made.name, made.root, allow_missing=True)
    assert len(dataset.images) == len(made.records) - 1
    assert any("1 of" in warning and "left out" in warning for warning in dataset.warnings)
