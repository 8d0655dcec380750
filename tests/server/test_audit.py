"""The hash chain: every way to change the log shows, several processes share it, a full disk refuses."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from served import make_gallery, serving

from tbps.errors import StorageError
from tbps.server import audit
from tbps.server.audit import AUDIT_FILE, HEAD_FILE, Audit, entries, verify
from tbps.server.settings import state_folder
from tbps.server.state_layout import MARK_FILE

LINES = 5


@pytest.fixture
def state(tmp_path: Path) -> Path:
    log = Audit(tmp_path / "state")
    for number in range(LINES):
        log.write("somebody", "1f2e", "search", asked={"texts": [{"text": f"wörd {number}"}]}, shown=[str(number)])
    return tmp_path / "state"


def test_the_chain_is_what_its_description_says(state: Path) -> None:
    """Computed anew from the lines alone."""
    previous = "0" * 64
    for number, line in enumerate((state / AUDIT_FILE).read_bytes().splitlines(keepends=True), start=1):
        found = json.loads(line)
        written = found.pop("hash")
        assert (found["number"], found["previous"]) == (number, previous)
        previous = hashlib.sha256((json.dumps(found, separators=(",", ":")) + "\n").encode()).hexdigest()
        assert previous == written
    verdict = verify(state)
    assert (verdict.lines, verdict.hash, verdict.wrong) == (LINES, previous, None)
    assert [entry["shown"] for entry in entries(state)] == [[str(number)] for number in range(LINES)]


def change(old: str, new: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [line.replace(old, new) for line in lines]


@pytest.mark.parametrize(
    ("tamper", "first_wrong", "says"),
    [
        (change("wörd 2".encode("ascii", "backslashreplace").decode().replace("\\xf6", "\\u00f6"), "word 2"), 3, "changed"),
        (change('"shown":["1"]', '"shown":[]'), 2, "changed"),
        (change('"who":"somebody","key":"1f2e","deed":"search","asked":{"texts":[{"text":"w\\u00f6rd 4', '"x":{{{"'), 5, "no line"),
        (lambda lines: lines[:2] + lines[3:], 3, "number 4"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2, "number 3"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4, "number 3"),
        (lambda lines: lines[:-1], 5, "missing"),
        (lambda lines: [], 1, "missing"),
        (lambda lines: [*lines[:-1], lines[-1][:-10]], 5, "ends early"),
        (lambda lines: [lines[0].replace('":', '" :', 1), *lines[1:]], 1, "changed"),
        (lambda lines: ["[]\n", *lines[1:]], 1, "no line"),
        (lambda lines: [lines[0], '{"number": 2}\n', *lines[2:]], 2, "no line"),
    ],
)
def test_tampering_shows_at_the_first_wrong_line(
    state: Path, tamper: Callable[[list[str]], list[str]], first_wrong: int, says: str
) -> None:
    file = state / AUDIT_FILE
    lines = file.read_text().splitlines(keepends=True)
    assert tamper(lines) != lines
    file.write_text("".join(tamper(lines)))
    wrong = verify(state).wrong
    assert wrong is not None and wrong.startswith(f"line {first_wrong}: ") and says in wrong


def test_a_rewritten_chain_shows_by_the_head_or_by_what_was_noted(state: Path) -> None:
    noted = f"3:{json.loads((state / AUDIT_FILE).read_text().splitlines()[2])['hash']}"
    assert verify(state, noted).wrong is None
    forged = Audit(state.parent / "forged")
    for number in range(LINES):
        forged.write("nobody", "", "search", shown=[str(number)])
    os.replace(state.parent / "forged" / AUDIT_FILE, state / AUDIT_FILE)
    assert "line 5" in (verify(state).wrong or "")
    os.replace(state.parent / "forged" / HEAD_FILE, state / HEAD_FILE)
    assert verify(state).wrong is None, "whoever makes both anew is seen only by"
    assert "written anew" in (verify(state, noted).wrong or "")
    lines = (state / AUDIT_FILE).read_text().splitlines(keepends=True)
    (state / AUDIT_FILE).write_text("".join(lines[:2]))
    assert "cut off" in (verify(state, noted).wrong or "")


@pytest.mark.parametrize("harm", ["shortened", "no head", "damaged head"])
def test_nothing_is_appended_to_a_log_that_lost_lines_or_its_head(state: Path, harm: str) -> None:
    if harm == "shortened":
        os.truncate(state / AUDIT_FILE, 100)
    elif harm == "no head":
        (state / HEAD_FILE).unlink()
    else:
        (state / HEAD_FILE).write_text("{")
    before = (state / AUDIT_FILE).read_bytes()
    with pytest.raises(StorageError, match="tbps audit verify"):
        Audit(state).write("x", "", "search")
    assert (state / AUDIT_FILE).read_bytes() == before
    assert verify(state).wrong is not None


def test_what_a_kill_leaves_behind_the_head_is_taken_up(state: Path) -> None:
    head = (state / HEAD_FILE).read_text()
    Audit(state).write("x", "", "one more")
    (state / HEAD_FILE).write_text(head)  # killed between line and head
    assert verify(state).wrong is None
    with (state / AUDIT_FILE).open("ab") as file:
        file.write(b'{"number": 7, "at": "20')  # killed inside a line
    assert "line 7: ends early" in (verify(state).wrong or "")
    Audit(state).write("x", "", "another")
    verdict = verify(state)
    assert (verdict.lines, verdict.wrong) == (LINES + 2, None)
    assert [entry["deed"] for entry in entries(state)][-2:] == ["one more", "another"]


def test_threads_and_processes_share_one_chain(state: Path) -> None:
    code = f"from pathlib import Path; from tbps.server.audit import Audit; a = Audit(Path({str(state)!r}))\n"
    code += "for n in range(15): a.write('process', '', 'search', n=n)"
    environment = os.environ | {"PYTHONPATH": str(Path(audit.__file__).parents[2])}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    log = Audit(state)
    threads = [threading.Thread(target=lambda: [log.write("thread", "", "search", n=n) for n in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(30) for process in processes] == [0, 0]
    verdict = verify(state)
    assert (verdict.lines, verdict.wrong) == (LINES + 2 * 15 + 4 * 10, None)
    for who, count in (("process", 30), ("thread", 40)):
        assert sum(entry["who"] == who for entry in entries(state)) == count


def test_a_search_that_cannot_be_audited_is_not_answered(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0, 1])
    asked = {"texts": [{"text": "red"}]}
    with serving(gallery) as client:
        hit = client.post("/v1/search", json=asked).json()["hits"][0]
        os.truncate(state_folder(gallery) / AUDIT_FILE, 10)
        answer = client.post("/v1/search", json=asked)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage")
        assert hit["id"] not in answer.text and str(tmp_path) not in answer.text
        assert "Retry-After" in answer.headers
        for path in (f"/v1/images/{hit['id']}/detail",):
            assert client.get(path).status_code == 503


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    """/dev/full refuses every byte as a full disk does."""
    state = tmp_path / "state"
    Audit(state).write("x", "", "search")
    (state / AUDIT_FILE).unlink()
    (state / AUDIT_FILE).symlink_to("/dev/full")
    (state / MARK_FILE).write_text("{}")  # a folder without a mark may hold no links
    (state / HEAD_FILE).write_text(json.dumps({"number": 0, "hash": "0" * 64, "size": 0}))
    with pytest.raises(StorageError, match="full"):
        Audit(state).write("x", "", "search")


def test_who_did_what_and_what_was_shown(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, range(6))
    state = state_folder(gallery)
    with serving(gallery) as client:
        found = client.post("/v1/search", json={"texts": [{"text": "red"}], "k": 2, "where": "age < 5"}).json()
        ids = [hit["id"] for hit in found["hits"]]
        for name in ids:
            client.get(f"/v1/images/{name}")
        (other,) = [h["id"] for h in client.post("/v1/search", json={"texts": [{"text": "red"}], "k": 6}).json()["hits"]][-1:]
        client.post("/v1/feedback", json={"query": {"texts": [{"text": "red"}], "k": 1}, "right": [ids[0]], "wrong": [other]})
        client.post("/v1/forget", json={"identity": "person 0"})
    with serving(gallery) as client:  # another service does not know what this one showed
        client.get(f"/v1/images/{ids[0]}" if client.get(f"/v1/images/{ids[0]}").status_code == 200 else f"/v1/images/{ids[1]}")
    written = list(entries(state))
    assert [entry["deed"] for entry in written] == ["search", "search", "feedback", "forget", "forgotten", "image"]
    assert written[0]["asked"] == {"texts": [{"text": "red"}], "k": 2, "where": "age < 5"}
    assert (written[0]["shown"], written[0]["total"], written[0]["who"]) == (ids, 5, "this machine")
    assert (written[2]["asked"]["right"], written[2]["asked"]["wrong"]) == ([ids[0]], [other])
    assert (written[3]["by"], written[4]["images"]) == (["identity"], 2)
    assert "person 0" not in (state / AUDIT_FILE).read_text(), "the log does not bring back who was forgotten"
    assert verify(state).wrong is None
