import json
import unicodedata
from pathlib import Path

import pytest

from tbps.data.readers import cuhk_pedes, folder
from tbps.errors import AnnotationError
from tbps.preprocess.metadata import resolve_inside
from tbps.preprocess.names import composed, file_key, label, spellings

NFC, NFD = "Zoë", unicodedata.normalize("NFD", "Zoë")


def test_labels_are_composed_and_without_invisible_characters() -> None:
    for given in (NFC, NFD, f"  {NFD}\t", f"\u200b{NFC}\ufeff", f"\u200d {NFC}\u2060 "):
        assert label(given) == NFC
    assert label("front  desk") == "front  desk" and label("\u200b ") == "\u200b " and label("") == ""
    persian = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # the joiner is part of the spelling
    assert label(persian) == persian
    assert composed(NFD) == NFC and set(spellings(NFD)) == {NFC, NFD} == set(spellings(NFC)) and spellings("a") == ("a",)


def test_file_keys() -> None:
    for given in (f"a/{NFC}.jpg", f"a\\{NFD}.jpg", f"./a//{NFD}.jpg", f"a/./{NFC}.jpg"):
        assert file_key(given) == f"a/{NFC}.jpg"
    assert file_key("/a//b") == "/a/b"


@pytest.mark.parametrize("on_disk", [NFC, NFD])
@pytest.mark.parametrize("written", [NFC, NFD])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_names_are_found_in_any_spelling(on_disk: str, written: str, slash: str, tmp_path: Path) -> None:
    file = tmp_path / on_disk / f"{on_disk}.jpg"
    file.parent.mkdir()
    file.write_bytes(b"")
    assert resolve_inside(tmp_path, f"{written}{slash}{written}.jpg") == file
    later = tmp_path / on_disk / f"{on_disk} 2.jpg"
    later.write_bytes(b"")  # a folder that changed after it was listed
    assert resolve_inside(tmp_path, f"{written}{slash}{written} 2.jpg") == later


def test_a_file_with_exactly_that_name_is_preferred(tmp_path: Path) -> None:
    for name in (NFC, NFD, "a\\b"):
        (tmp_path / name).write_bytes(b"")
        assert resolve_inside(tmp_path, name) == tmp_path / name
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"")
    assert resolve_inside(tmp_path, "a\\b") == tmp_path / "a\\b"


@pytest.mark.parametrize("name", ["..\\a.jpg", "a\\..\\..\\b.jpg", "\\\\server\\a.jpg", "C:\\a.jpg", "\ud800.jpg"])
def test_other_spellings_do_not_leave_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "b.jpg").write_bytes(b"")
    with pytest.raises(AnnotationError):
        resolve_inside(tmp_path / "in", name)


def test_an_absolute_name_with_backslashes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_bytes(b"")
    assert resolve_inside(tmp_path, "\\etc\\passwd") == tmp_path / "\\etc\\passwd"


def test_annotation_files_of_other_systems(tmp_path: Path) -> None:
    (tmp_path / "imgs" / "cam_a").mkdir(parents=True)
    (tmp_path / "imgs" / "cam_a" / f"{NFD}.png").write_bytes(b"x")
    record = {"split": "train", "captions": ["a man"], "file_path": f"cam_a\\{NFC}.png", "processed_tokens": [], "id": 1}
    (tmp_path / "reid_raw.json").write_text(json.dumps([record]))
    (image,) = cuhk_pedes.read(tmp_path).images
    assert image.path == tmp_path / "imgs" / "cam_a" / f"{NFD}.png"


def test_people_and_cameras_of_a_folder_are_the_same_in_both_spellings(tmp_path: Path) -> None:
    lines = [
        {"file_name": f"{n}.jpg", "caption": "a man", "identity": name, "camera": f" {name}"} for n, name in enumerate((NFC, NFD))
    ]
    for n in range(2):
        (tmp_path / f"{n}.jpg").write_bytes(b"x")
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    images = folder.read(tmp_path).images
    assert {image.identity for image in images} == {0} and {image.camera for image in images} == {NFC}
