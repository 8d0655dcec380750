"""Audit log: every change is detected, several processes share it, a full disk is an error."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tbps.errors import GalleryError, SettingsError, StorageError
from tbps.server import audit
from tbps.server.audit import AUDIT_FILE, HEAD_FILE, Audit, entries, verify
from tbps.server.settings import state_folder
from tbps.server.state.layout import MARK_FILE
from tests.support.served import bearer, make_gallery, service_of, serving

LINES = 5


@pytest.fixture
def state(tmp_path: Path) -> Path:
    log = Audit(tmp_path / "state")
    for number in range(LINES):
        log.write("somebody", "1f2e", "search", asked={"texts": [{"text": f"wörd {number}"}]}, shown=[str(number)])
    return tmp_path / "state"


def test_the_hash_chain_matches_its_description(state: Path) -> None:
    """The expected hashes are computed from the lines alone."""
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
        (
            change('"who":"somebody","key":"1f2e","deed":"search","asked":{"texts":[{"text":"w\\u00f6rd 4', '"x":{{{"'),
            5,
            "not a line of an audit log",
        ),
        (lambda lines: lines[:2] + lines[3:], 3, "number 4"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2, "number 3"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4, "number 3"),
        (lambda lines: lines[:-1], 5, "missing"),
        (lambda lines: [], 1, "missing"),
        (lambda lines: [*lines[:-1], lines[-1][:-10]], 5, "ends early"),
        (lambda lines: [lines[0].replace('":', '" :', 1), *lines[1:]], 1, "changed"),
        (lambda lines: ["[]\n", *lines[1:]], 1, "not a line of an audit log"),
        (lambda lines: [lines[0], '{"number": 2}\n', *lines[2:]], 2, "not a line of an audit log"),
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


def test_a_rewritten_chain_is_detected_by_the_head_or_a_noted_line(state: Path) -> None:
    noted = f"3:{json.loads((state / AUDIT_FILE).read_text().splitlines()[2])['hash']}"
    assert verify(state, noted).wrong is None
    forged = Audit(state.parent / "forged")
    for number in range(LINES):
        forged.write("nobody", "", "search", shown=[str(number)])
    os.replace(state.parent / "forged" / AUDIT_FILE, state / AUDIT_FILE)
    assert "line 5" in (verify(state).wrong or "")
    os.replace(state.parent / "forged" / HEAD_FILE, state / HEAD_FILE)
    assert verify(state).wrong is None, "a rewritten log with a rewritten head is detected only by a note"
    assert "rewritten" in (verify(state, noted).wrong or "")
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


def test_whole_lines_behind_the_head_are_kept_after_a_kill(state: Path) -> None:
    head = (state / HEAD_FILE).read_text()
    Audit(state).write("x", "", "one more")
    (state / HEAD_FILE).write_text(head)  # as after a kill between line and head
    assert verify(state).wrong is None
    with (state / AUDIT_FILE).open("ab") as file:
        file.write(b'{"number": 7, "at": "20')  # as after a kill within a line
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
    assert [process.wait(300) for process in processes] == [0, 0]
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
    """/dev/full fails like a full disk."""
    state = tmp_path / "state"
    Audit(state).write("x", "", "search")
    (state / AUDIT_FILE).unlink()
    (state / AUDIT_FILE).symlink_to("/dev/full")
    (state / MARK_FILE).write_text("{}")  # a folder without a mark may hold no links
    (state / HEAD_FILE).write_text(json.dumps({"number": 0, "hash": "0" * 64, "size": 0}))
    with pytest.raises(StorageError, match="full"):
        Audit(state).write("x", "", "search")


def test_lines_record_caller_action_and_shown_images(tmp_path: Path) -> None:
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
    assert "person 0" not in (state / AUDIT_FILE).read_text(), "the log does not name erased people"
    assert verify(state).wrong is None


@pytest.mark.parametrize(
    "fact",
    [
        float("nan"),
        float("inf"),
        {"equals": {"gender": float("-inf")}},
        [object()],
        {1, 2},
        10**5000,
        b"bytes",
        {"1": "a", 1: "b"},
        {(1, 2): "a"},
    ],
    ids=lambda value: str(type(value)) + str(value)[:20] if not isinstance(value, int) else "many digits",
)
def test_an_action_that_json_cannot_hold_fails_alone(state: Path, fact: Any) -> None:
    log = Audit(state)
    with _held(log), ThreadPoolExecutor(9) as pool:
        good = [pool.submit(log.write, "x", "", "search", n=n) for n in range(4)]
        with pytest.raises(StorageError, match="cannot be written"):
            log.write("x", "", "search", asked=fact)
        good += [pool.submit(log.write, "x", "", "search", n=n) for n in range(4, 8)]
        _wait_until(lambda: len(log._waiting) == 8)
        log._writing.release()
        assert [future.result() for future in good] == [None] * 8
        log._writing.acquire()
    assert (verify(state).lines, verify(state).wrong) == (LINES + 8, None)
    with pytest.raises(StorageError, match="'previous'"):
        log.write("x", "", "search", previous="x")


def _wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(100_000):
        if holds():
            return
        threading.Event().wait(0.001)
    raise AssertionError("timed out")


class _held:
    """Holds the lock of the log; actions that are written meanwhile form one batch."""

    def __init__(self, log: Audit) -> None:
        self._lock = log._writing

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _Ended(BaseException):
    """An exception that is not an `Exception`."""


@pytest.mark.parametrize("place", ["_write_whole", "_write_head", "_line", "_end_of_log"])
@pytest.mark.parametrize(
    "raised", [ValueError("odd"), MemoryError(), OSError(28, "No space left on device"), RecursionError(), _Ended()], ids=repr
)
def test_an_error_in_a_batch_fails_all_its_actions(
    state: Path, monkeypatch: pytest.MonkeyPatch, place: str, raised: BaseException
) -> None:
    """This includes exceptions that end the writing thread. No partial line stays, and the next line is written."""
    log, before = Audit(state), (state / AUDIT_FILE).read_bytes()

    def fails(*_: Any) -> None:
        raise raised

    with monkeypatch.context() as patch:
        patch.setattr(audit, place, fails)
        with _held(log), ThreadPoolExecutor(6) as pool:
            futures = [pool.submit(log.write, "x", "", "search", n=n) for n in range(6)]
            _wait_until(lambda: len(log._waiting) == 6)
            log._writing.release()
            errors = [future.exception() for future in futures]
            log._writing.acquire()
    assert all(isinstance(error, StorageError | _Ended) for error in errors), errors
    assert sum(isinstance(error, _Ended) for error in errors) == isinstance(raised, _Ended), "only the writing thread is ended"
    assert (state / AUDIT_FILE).read_bytes() == before and verify(state).wrong is None
    log.write("x", "", "search")
    assert (verify(state).lines, verify(state).wrong) == (LINES + 1, None)


def test_an_action_whose_writer_was_ended_counts_as_failed(state: Path) -> None:
    """The writing thread was ended after it took the action and before it wrote the line."""
    log = Audit(state)
    with _held(log), ThreadPoolExecutor(1) as pool:
        future = pool.submit(log.write, "x", "", "search")
        _wait_until(lambda: len(log._waiting) == 1)
        log._waiting.clear()
        log._writing.release()
        assert isinstance(future.exception(), StorageError)
        log._writing.acquire()
    assert verify(state).lines == LINES


def test_a_disk_that_fills_up_within_a_batch(state: Path) -> None:
    """If the system writes only a part of the bytes, no line of the batch stays, and all actions of the batch fail."""
    code = f"""
import json, resource, signal, sys, threading
from pathlib import Path
from tbps.errors import StorageError
from tbps.server.audit import Audit
state = Path({str(state)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = (state / "audit.jsonl").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, size + 1000))
log, refused = Audit(state), []
def write(n):
    try:
        log.write("x", "", "search", n=n, filling="f" * 600)
    except StorageError as error:
        refused.append(str(error))
log._writing.acquire()
threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
for thread in threads: thread.start()
while len(log._waiting) < 3: pass
log._writing.release()
for thread in threads: thread.join()
print(json.dumps(refused))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(audit.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600, check=True)
    refused = json.loads(done.stdout)
    assert len(refused) == 3 and all("full" in each for each in refused)
    assert (verify(state).lines, verify(state).wrong) == (LINES, None)


@pytest.mark.parametrize(
    "noted",
    [
        "x",
        "",
        ":",
        "3",
        "3:",
        "3:abc",
        "1,200:{hash}",
        "+3:{hash}",
        "-3:{hash}",
        "03:{hash}",
        " 3:{hash}",
        "3 :{hash}",
        "3: {hash}",
        "3:{hash} ",
        "3:{hash}\n",
        "\u0663:{hash}",
        "3.0:{hash}",
        "3e0:{hash}",
        "3:{hash}0",
        "3:{short}",
        "3:{odd}",
        "{hash}:3",
        "3:{hash}:{hash}",
        "0:{hash}",
        "true:{hash}",
        "9999999999999999999:{hash}",
    ],
)
def test_malformed_notes_are_refused(state: Path, noted: str) -> None:
    """A mistyped note must not verify any log."""
    last = json.loads((state / AUDIT_FILE).read_text().splitlines()[2])["hash"]
    with pytest.raises(SettingsError, match="such as 12:"):
        verify(state, noted.format(hash=last, short=last[1:], odd="g" + last[1:]))


def test_accepted_notes(state: Path, tmp_path: Path) -> None:
    lines = (state / AUDIT_FILE).read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        last = json.loads(line)["hash"]
        assert verify(state, f"{number}:{last}").wrong is verify(state, f"{number}:{last.upper()}").wrong is None
        other = "0" * 64
        assert f"line {number}: is not the one" in (verify(state, f"{number}:{other}").wrong or "")
    assert "line 6: was noted and is missing" in (verify(state, f"6:{last}").wrong or "")
    empty = verify(tmp_path / "nothing")
    assert verify(state, f"{empty.lines}:{empty.hash}").wrong is None, "noted before the first line"


def test_malformed_heads_are_detected(state: Path) -> None:
    kept = json.loads((state / HEAD_FILE).read_text())
    size = (state / AUDIT_FILE).stat().st_size
    for change in (
        {"number": True},
        {"number": str(LINES)},
        {"number": float(LINES)},
        {"number": -1},
        {"number": LINES - 1},
        {"size": float(size)},
        {"size": str(size)},
        {"size": size - 1},
        {"size": 0},
        {"hash": kept["hash"].upper()},
        {"hash": "0" * 64},
        {"hash": 0},
    ):
        (state / HEAD_FILE).write_text(json.dumps({**kept, **change}))
        before = (state / AUDIT_FILE).read_bytes()
        assert verify(state).wrong is not None, change
        with pytest.raises(StorageError, match="tbps audit verify"):
            Audit(state).write("x", "", "search")
        assert (state / AUDIT_FILE).read_bytes() == before, "a wrong head removes no line"
    for damaged in ("[" * 100_000, "1e3", "[]", '{"number": 1e3, "hash": "", "size": 0}', ""):
        (state / HEAD_FILE).write_text(damaged)
        assert verify(state).wrong is not None
        with pytest.raises(StorageError):
            Audit(state).write("x", "", "search")


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"number": true, "previous": "x", "hash": "x"}', '{"hash": NaN}', "1" * 5000, "null"]
)
def test_malformed_lines_are_reported_and_do_not_stop_reading(state: Path, line: str) -> None:
    lines = (state / AUDIT_FILE).read_text().splitlines(keepends=True)
    (state / AUDIT_FILE).write_text("".join([*lines[:2], line + "\n", *lines[2:]]))
    assert verify(state).wrong == "line 3: is not a line of an audit log"
    assert len(list(entries(state))) >= LINES


ASKED = {"texts": [{"text": "red"}]}


def _lines_of(gallery: Path) -> list[dict[str, Any]]:
    return list(entries(state_folder(gallery)))


def test_every_search_leaves_one_line_however_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = make_gallery(tmp_path, range(6))
    headers = bearer(gallery, "viewer")
    with serving(gallery) as client:
        client.headers.update(headers)

        def ask(path: str, **sent: Any) -> tuple[int, dict[str, Any]]:
            before = len(_lines_of(gallery))
            answer = client.post(path, **sent)
            (line,) = _lines_of(gallery)[before:]
            assert (line["who"], line["deed"]) == ("viewer of all", path.rpartition("/")[2])
            return answer.status_code, line

        status, line = ask("/v1/search", json=ASKED)
        assert (status, line["asked"], len(line["shown"])) == (200, ASKED, 6) and "ended" not in line
        name = line["shown"][0]
        for path, sent in {
            "/v1/search": {"json": {**ASKED, "where": "colour = 'red'"}},
            "/v1/similar": {"json": {"id": "f" * 24, "query": ASKED}},
            "/v1/feedback": {"json": {"query": ASKED, "right": ["nobody"]}},
            "/v1/explain": {"json": {"query": ASKED, "id": "f" * 24}},
        }.items():
            status, line = ask(path, **sent)
            assert status in (400, 404) and (line["ended"], line["status"]) == ("refused", status)
            assert line["asked"]["texts"] == ASKED["texts"] and "shown" not in line
        status, line = ask("/v1/search", json={**ASKED, "group": "colour"})
        assert (status, line["code"], line["asked"]["group"]) == (400, "query", "colour")
        status, line = ask("/v1/search", json={**ASKED, "k": 0})
        assert (status, line["ended"], line["sent"]) == (422, "refused", json.dumps({**ASKED, "k": 0}, separators=(",", ":")))
        status, line = ask("/v1/search", content=b"{", headers={"Content-Type": "application/json"})
        assert (status, line["sent"], line["bytes"]) == (422, "{", 1)
        status, line = ask("/v1/search", content=b"{}", headers={"Content-Type": "text/plain"})
        assert (status, line["code"]) == (415, "media")
        status, line = ask("/v1/similar", files=[("image", ("a.jpg", b"none"))])
        assert (status, line["ended"]) == (400, "refused")
        for error, code in ((MemoryError(), 500), (ZeroDivisionError(), 500), (GalleryError("gone"), 503), (KeyError("x"), 500)):
            with monkeypatch.context() as patch:

                def fails(*_: Any, error: Exception = error, **__: Any) -> None:
                    raise error

                patch.setattr(service_of(client).gallery, "find", fails)
                patch.setattr(service_of(client).gallery, "explain", fails)
                for path, sent in (("/v1/search", ASKED), ("/v1/explain", {"query": ASKED, "id": name})):
                    status, line = ask(path, json=sent)
                    assert (status, line["ended"], line["status"]) == (code, "failed", code)
                    assert line["asked"] == ASKED and "message" not in line
        assert verify(state_folder(gallery)).wrong is None


@pytest.mark.parametrize(
    "sent",
    [
        {"json": ASKED},
        {"json": {**ASKED, "where": "colour = 'red'"}},
        {"json": {**ASKED, "k": 0}},
        {"content": b"{", "headers": {"Content-Type": "application/json"}},
        {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
    ],
    ids=str,
)
def test_a_refusal_is_not_answered_without_its_line(tmp_path: Path, sent: dict[str, Any]) -> None:
    gallery = make_gallery(tmp_path, range(3))
    with serving(gallery) as client:
        assert client.post("/v1/search", json=ASKED).status_code == 200
        os.truncate(state_folder(gallery) / AUDIT_FILE, 10)
        answer = client.post("/v1/search", **sent)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage")


def test_concurrent_searches_are_all_in_the_log(tmp_path: Path) -> None:
    """This includes searches whose lines once made the writer of the log fail."""
    gallery = make_gallery(tmp_path, range(6))
    with serving(gallery, at_once=16) as client:
        bodies = [b'{"texts": [{"text": "red"}]}', b'{"texts": [{"text": "red"}], "equals": {"age": NaN}}', b'{"k": 1e999}']

        def ask(number: int) -> int:
            kind = {"Content-Type": "application/json"}
            return int(client.post("/v1/search", content=bodies[number % 3], headers=kind).status_code)

        with ThreadPoolExecutor(16) as pool:
            codes = list(pool.map(ask, range(150)))
        assert sorted(codes) == [200] * 50 + [422] * 100
    written = _lines_of(gallery)
    assert len(written) == 150 and sum("shown" in line for line in written) == 50
    assert (verify(state_folder(gallery)).lines, verify(state_folder(gallery)).wrong) == (150, None)


def test_a_refused_erasure_is_logged_without_the_identity(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, range(3))
    with serving(gallery) as client:
        for sent in ({"where": "nonsense = 'zebra person'"}, {"before": "zebra person"}, {"identity": "zebra person", "k": 1}):
            assert client.post("/v1/forget", json=sent).status_code in (400, 422)
    assert {line["deed"] for line in _lines_of(gallery)} == {"forget"} and len(_lines_of(gallery)) == 3
    assert "zebra" not in (state_folder(gallery) / AUDIT_FILE).read_text()
