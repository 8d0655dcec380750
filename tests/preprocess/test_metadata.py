import json
from pathlib import Path

import pytest

from tbps.errors import AnnotationError
from tbps.preprocess.metadata import read_metadata, resolve_inside


def write(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "metadata.jsonl"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_rows_are_read_in_order(tmp_path: Path) -> None:
    lines = [
        json.dumps({"file_name": "a/1.jpg", "caption": "a man", "camera": "lobby", "n": [1, None]}),
        "",
        json.dumps({"file_name": "2.jpg", "captions": ["红色外套", "two 👍"]}),
        json.dumps({"file_name": "3.jpg"}),
    ]
    rows = list(read_metadata(write(tmp_path, "\ufeff" + "\r\n".join(lines))))
    assert [(row.line, row.file_name, row.captions) for row in rows] == [
        (1, "a/1.jpg", ("a man",)),
        (3, "2.jpg", ("红色外套", "two 👍")),
        (4, "3.jpg", ()),
    ]
    assert rows[0].columns == {"camera": "lobby", "n": [1, None]}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"file_name": "a.jpg"', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"file_name": "a.jpg", "x": NaN}', "NaN is not a JSON value"),
        ('["a.jpg"]', "expected a JSON object, found list"),
        ("{}", "'file_name': expected the name of an image file, found None"),
        ('{"file_name": 3}', "'file_name'.*found 3"),
        ('{"file_name": " "}', "'file_name'"),
        ('{"file_name": "a.jpg", "caption": 3}', "'caption': expected text, found int"),
        ('{"file_name": "a.jpg", "captions": "text"}', "'captions': expected a list of texts"),
        ('{"file_name": "a.jpg", "captions": ["x", 3]}', "'captions': expected a list of texts"),
        ('{"file_name": "a.jpg", "caption": "x", "captions": ["x"]}', "both 'caption' and 'captions'"),
    ],
)
def test_invalid_lines_are_named(line: str, problem: str, tmp_path: Path) -> None:
    file = write(tmp_path, '{"file_name": "ok.jpg"}\n' + line)
    with pytest.raises(AnnotationError, match=f"metadata.jsonl: line 2.*{problem}"):
        list(read_metadata(file))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="not UTF-8"):
        list(read_metadata(write(tmp_path, b'{"file_name": "\xff\xfe.jpg"}')))
    with pytest.raises(AnnotationError, match="cannot be read"):
        list(read_metadata(tmp_path / "nothing.jsonl"))


@pytest.mark.parametrize("name", ["../a.jpg", "a/../../b.jpg", "/etc/passwd", "..\\a.jpg", "C:\\a.jpg", "c:a.jpg", "", " ", "a\0b"])
def test_names_that_leave_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError):
        resolve_inside(tmp_path, name)


def test_names_inside_the_folder_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    assert resolve_inside(tmp_path, "real/..b.jpg") == tmp_path / "real" / "..b.jpg"
    assert resolve_inside(tmp_path, "./real//x.jpg") == tmp_path / "real" / "x.jpg"
    assert resolve_inside(tmp_path, "link/x.jpg") == tmp_path / "real" / "x.jpg"
    assert resolve_inside(tmp_path / "link", "x.jpg") == tmp_path / "real" / "x.jpg"


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "inside2"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(b"")
    (inside / "folder").symlink_to(outside, target_is_directory=True)
    (inside / "file.jpg").symlink_to(outside / "secret.jpg")
    for name in ("folder/secret.jpg", "file.jpg"):
        with pytest.raises(AnnotationError, match="leaves the folder"):
            resolve_inside(inside, name)
