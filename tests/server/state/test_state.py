"""State folders: which folders are accepted, and that refused ones are left unchanged."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tbps.errors import SettingsError, StorageError
from tbps.gallery.gallery import Gallery
from tbps.server.audit import Audit, entries, verify
from tbps.server.callers.keys import Keys, Role
from tbps.server.service import Service
from tbps.server.settings import ServiceSettings, state_folder
from tbps.server.state.layout import MARK_FILE
from tbps.server.state.opening import open_state
from tbps.server.uploads.records import STOPPED
from tests.support.colour_encoder import ColourEncoder
from tests.support.processes import PROGRAM, ask, environment, form, job_when, served, started, upload
from tests.support.served import make_gallery, serving

JOB = "0123456789abcdef01234567"


def tree(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    """Every entry below a folder with its mode and its content or link target."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(folder.rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


def put(folder: Path, **files: str) -> Path:
    """Create a folder with files. In the argument names, double underscores stand for slashes and single ones for dots."""
    for name, content in files.items():
        file = folder / name.replace("__", "/").replace("_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


def link(folder: Path, name: str, target: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(target)


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a thesis in jobs": (lambda f: put(f, jobs__thesis_txt="mine"), "jobs/thesis.txt"),
    "mail in spool": (lambda f: put(f, spool__mail__inbox="mine"), "spool/mail"),
    "a file beside keys": (lambda f: put(f, keys_json='{"format": "tbps-keys", "entries": []}', notes_txt="x"), "notes.txt"),
    "keys of another program": (lambda f: put(f, keys_json='{"keys": []}'), "keys.json"),
    "a log of another program": (lambda f: put(f, audit_jsonl='{"event": "login"}\n'), "audit.jsonl"),
    "jobs of another program": (lambda f: put(f, **{f"jobs__{JOB}_json": '{"task": 1}'}), "jobs"),
    "an empty folder named jobs": (lambda f: (f / "jobs").mkdir(parents=True), "jobs"),
    "jobs is a file": (lambda f: put(f, jobs="mine"), "jobs"),
    "spool is a link": (lambda f: link(f, "spool", "../photos"), "spool"),
    "a folder in an upload": (lambda f: put(f, **{f"spool__jobs__{JOB}__0000__inbox": "x"}), f"spool/jobs/{JOB}/0000"),
    "a link in an upload": (lambda f: link(f / "spool" / "jobs" / JOB, "0000", "/etc/passwd"), f"spool/jobs/{JOB}/0000"),
    "a hidden file": (lambda f: put(f, **{"_bashrc": "x"}), ".bashrc"),
    "another gallery": (lambda f: make_gallery(f, [0]), "gallery"),
}


@pytest.mark.parametrize("name", list(FOREIGN))
def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    gallery, state = make_gallery(tmp_path, [0]), tmp_path / "state"
    make, found = FOREIGN[name]
    make(state)
    before, photos = tree(state), tree(tmp_path / "photos")
    with pytest.raises(SettingsError, match=rf"{re.escape(repr(found))}.*--state"):
        Service(gallery, ColourEncoder(), ServiceSettings(), state)
    assert tree(state) == before and tree(tmp_path / "photos") == photos


@pytest.mark.parametrize("command", ["keys add {} x", "keys list {}", "keys remove {} x", "audit verify {}", "audit show {}"])
def test_commands_refuse_folders_with_other_files_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    from tbps.cli import main

    gallery, state = make_gallery(tmp_path, [0]), put(tmp_path / "state", jobs__thesis_txt="mine")
    before = tree(state)
    monkeypatch.setattr(sys, "argv", ["tbps", *command.format(gallery).split(), "--state", str(state)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "'jobs/thesis.txt'" in said and len(said.splitlines()) == 1
    with pytest.raises(SettingsError, match="thesis"):
        Keys(state).add("x", Role.viewer)
    with pytest.raises(SettingsError, match="thesis"):
        Audit(state).write("x", "", "search")
    assert tree(state) == before


def test_a_new_folder_is_marked_and_found_again(tmp_path: Path) -> None:
    gallery, state = make_gallery(tmp_path, [0]), tmp_path / "deep" / "state"
    manifest = gallery_manifest(gallery)
    assert open_state(state, gallery, manifest) == ()
    assert json.loads((state / MARK_FILE).read_text())["gallery"] == str(gallery.resolve())
    before = tree(state)
    assert open_state(state, gallery, manifest) == () and tree(state) == before
    (state / "keepsake.txt").write_text("in a marked folder")
    with Started(gallery, state):
        pass
    assert (state / "keepsake.txt").read_text() == "in a marked folder"
    (tmp_path / "empty").mkdir()
    assert open_state(tmp_path / "empty", gallery, manifest) == () and (tmp_path / "empty" / MARK_FILE).is_file()


def gallery_manifest(gallery: Path):  # type: ignore[no-untyped-def]
    from tbps.gallery.store.manifest import recorded

    return recorded(gallery)


class Started:
    """Context manager for a started service without a port."""

    def __init__(self, gallery: Path, state: Path | None = None) -> None:
        self.service = Service(gallery, ColourEncoder(), ServiceSettings(), state)

    def __enter__(self) -> Service:
        self.service.start()
        return self.service

    def __exit__(self, *error: object) -> None:
        self.service.stop()


def old_state(gallery: Path) -> Path:
    """A state folder of version 0.1: keys, a log, a record, a waiting upload."""
    state = state_folder(gallery)
    Keys(state).add("front desk", Role.viewer)
    Audit(state).write("x", "", "search")
    (state / "jobs").mkdir()
    record = {"id": JOB, "owner": "", "state": "running", "created_at": "2030-01-01T00:00:00", "done": 1, "skipped": []}
    (state / "jobs" / f"{JOB}.json").write_text(json.dumps(record))
    put(state, **{f"spool__jobs__{JOB}__0000": "x", f"jobs___{JOB}_json_x_part": "{"})
    (state / "spool" / "asked").mkdir()
    assert not (state / MARK_FILE).exists()
    return state


def test_a_folder_of_version_0_1_stays_in_use_with_a_remark(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gallery = make_gallery(tmp_path, [0])
    state = old_state(gallery)
    with Started(gallery) as service:
        assert [key.name for key in service.keys.all()] == ["front desk"]
        assert "version 0.1" in caplog.text and str(state) in caplog.text
        assert [job.message for job in service.jobs._jobs.values()] == [STOPPED]
    assert verify(state).wrong is None
    caplog.clear()
    with Started(gallery):
        assert "version 0.1" not in caplog.text
    assert {path.name for path in state.iterdir()} == {
        MARK_FILE,
        "keys.json",
        "audit.jsonl",
        "audit.head",
        "service.id",
        ".lock",
        "jobs",
    }


def test_damaged_marks_are_refused(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0])
    state = state_folder(gallery)
    open_state(state, gallery, gallery_manifest(gallery))
    good = (state / MARK_FILE).read_text()
    for bad in ("", "{", "[" * 100_000, good.replace('"version": 1', '"version": 2'), '{"format": "other"}'):
        (state / MARK_FILE).write_text(bad)
        before = tree(state)
        with pytest.raises(SettingsError, match="damaged or of a later version"):
            Service(gallery, ColourEncoder(), ServiceSettings())
        assert tree(state) == before
    (state / MARK_FILE).write_text(good)
    for name, kind in (("jobs", "folder"), ("spool", "folder"), ("audit.jsonl", "file")):
        (tmp_path / kind).mkdir() if kind == "folder" else (tmp_path / kind).write_text("")
        (state / name).symlink_to(tmp_path / kind)
        with pytest.raises(SettingsError, match=re.escape(repr(name))):
            Service(gallery, ColourEncoder(), ServiceSettings())
        (state / name).unlink()
        shutil.rmtree(tmp_path / kind) if kind == "folder" else (tmp_path / kind).unlink()


def test_the_state_of_another_gallery_is_refused_and_that_of_a_moved_one_is_used(tmp_path: Path) -> None:
    one, other = make_gallery(tmp_path / "one", [0]), make_gallery(tmp_path / "other", [1])
    with Started(one, tmp_path / "state"):
        pass
    before = tree(tmp_path / "state")
    with pytest.raises(SettingsError, match=rf"another gallery, {re.escape(str(one))}"):
        Service(other, ColourEncoder(), ServiceSettings(), tmp_path / "state")
    assert tree(tmp_path / "state") == before
    (tmp_path / "link").symlink_to(one)
    Service(tmp_path / "link", ColourEncoder(), ServiceSettings(), tmp_path / "state")
    one.rename(tmp_path / "moved")
    remarks = open_state(tmp_path / "state", tmp_path / "moved", gallery_manifest(tmp_path / "moved"))
    assert len(remarks) == 1 and str(one) in remarks[0]
    assert open_state(tmp_path / "state", tmp_path / "moved", gallery_manifest(tmp_path / "moved")) == ()


@pytest.mark.parametrize(
    "place", ["gallery/state", "gallery/images.lance/data", "gallery", "link/state", "photos/../gallery/x/y", "."]
)
def test_gallery_and_state_must_not_contain_each_other(tmp_path: Path, place: str) -> None:
    """Either folder inside the other is refused, by whatever path it is given."""
    gallery = make_gallery(tmp_path, [0])
    (tmp_path / "link").symlink_to(gallery)
    before = tree(tmp_path)
    with pytest.raises(SettingsError, match=r"lies in the (gallery|state folder)"):
        Service(gallery, ColourEncoder(), ServiceSettings(), tmp_path / place)
    assert tree(tmp_path) == before


def test_a_gallery_within_a_marked_state_is_refused(tmp_path: Path) -> None:
    gallery, state = make_gallery(tmp_path, [0]), tmp_path / "state"
    open_state(state, gallery, gallery_manifest(gallery))
    shutil.move(gallery, state / "spool")
    before = tree(state)
    with pytest.raises(SettingsError, match="lies in the state folder"):
        Service(state / "spool", ColourEncoder(), ServiceSettings(), state)
    assert tree(state) == before


def test_a_second_service_is_refused_before_it_removes_anything(tmp_path: Path) -> None:
    """The second service uses the same state folder, another one, or a link to the gallery. The message contains the process of the
    first service. After that process is killed, a new service starts."""
    gallery = make_gallery(tmp_path, range(6))
    (tmp_path / "link").symlink_to(gallery)
    with served(gallery, image_seconds=600.0) as (address, process):
        waiting = [upload(address, *form(2, 100 * number)) for number in range(3)]
        spool = tree(state_folder(gallery) / "spool")
        for arguments in ((gallery, None), (gallery, tmp_path / "other"), (tmp_path / "link", state_folder(gallery))):
            second = Service(arguments[0], ColourEncoder(), ServiceSettings(), arguments[1])
            with pytest.raises(SettingsError, match=rf"is in use by another service \(process {process.pid} on "):
                second.start()
            second.stop()
            assert tree(state_folder(gallery) / "spool") == spool
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(gallery), "0", "{}", "0"],
            capture_output=True,
            check=False,
            text=True,
            env=environment(),
        )
        assert ran.returncode and "http://" not in ran.stdout and "is in use by another service" in ran.stderr
        assert tree(state_folder(gallery) / "spool") == spool
        assert [job["id"] for job in ask(address, "/v1/index")[1]["jobs"]] == waiting[::-1]
        Gallery.open(gallery, ColourEncoder()).add(tmp_path / "photos")  # commands still work beside a service
        process.kill()
        process.wait()
    with Started(gallery) as service:
        assert len(service.jobs._jobs) == 3


def test_two_services_cannot_share_a_state_folder(tmp_path: Path) -> None:
    """The lock of the state folder suffices, even if the marks of two galleries were equal."""
    one, other = make_gallery(tmp_path / "one", [0]), make_gallery(tmp_path / "other", [1])
    with Started(one, tmp_path / "state"):
        second = Service(other, ColourEncoder(), ServiceSettings(), tmp_path / "other state")
        second._claim._state = tmp_path / "state"
        with pytest.raises(SettingsError, match=r"state folder .* is in use by another service \(process"):
            second.start()
    second.start()
    second.stop()


KILLED = (
    """
import os, sys
from pathlib import Path
import tbps.server.uploads.records as records, tbps.server.audit as audit, tbps.gallery.store.table as table
place, left = sys.argv[5], int(sys.argv[6])

def dying(do, before):
    def done(self, *arguments, **more):
        global left
        mine = place != "audit" or arguments[2] == "indexed"
        left -= mine
        if mine and not left and before:
            os.kill(os.getpid(), 9)
        value = do(self, *arguments, **more)
        if mine and not left:
            os.kill(os.getpid(), 9)
        return value
    return done

where, name = {"record": (records.JobRecords, "keep"), "audit": (audit.Audit, "write"), "commit": (table.Table, "append")}[place]
setattr(where, name, dying(getattr(where, name), sys.argv[7] == "before"))
"""
    + PROGRAM
)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("place", "count"), [*(("record", n) for n in range(3, 7)), ("audit", 1), ("commit", 1)])
def test_every_job_has_one_final_line_whenever_the_service_is_killed(tmp_path: Path, place: str, count: int, moment: str) -> None:
    """`added` also equals the number of its rows in the gallery. The kill happens before or after the n-th record, line or commit.

    Records of an upload: 1 waiting, 2 running, 3 before the commit, 4 committed, 5 final, 6 told; more if the job takes seconds.
    """
    gallery = make_gallery(tmp_path, range(3))
    program = ["-c", KILLED, str(gallery), "0", "{}", "0", place, str(count), moment]
    with started(*program) as (address, process):
        name = upload(address, *form(4, 100))
        assert process.wait(3000) == -signal.SIGKILL
    state = state_folder(gallery)
    for _ in range(2):
        with Started(gallery) as service:
            (job,) = service.jobs._jobs.values()
            assert job.id == name and job.ended and job.told
            assert job.added == len(service.gallery) - 3, (job, len(service.gallery))
        lines = [line for line in entries(state) if line["deed"] == "indexed"]
        assert [(line["job"], line["state"], line["added"]) for line in lines] == [(name, job.state, job.added)]
    assert verify(state).wrong is None


def test_final_states_that_could_not_be_logged_are_logged_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = make_gallery(tmp_path, [0])
    with serving(gallery) as client:
        service = client.app.state.service  # type: ignore[attr-defined]
        write = service.audit.write

        def refuse(who: str, key: str, deed: str, **facts: object) -> None:
            if deed == "indexed":
                raise StorageError("the disk is full")
            write(who, key, deed, **facts)

        monkeypatch.setattr(service.audit, "write", refuse)
        body, headers = form(1, 5)
        name = client.post("/v1/index", content=body, headers=headers).json()["job"]["id"]
        while client.get(f"/v1/index/{name}").json()["state"] != "done":
            pass
        assert json.loads((state_folder(gallery) / "jobs" / f"{name}.json").read_text())["told"] is False
    with Started(gallery):
        pass
    lines = [line for line in entries(state_folder(gallery)) if line["deed"] == "indexed"]
    assert [(line["job"], line["state"], line["added"]) for line in lines] == [(name, "done", 1)]


def test_a_stopped_service_logs_waiting_jobs_as_failed(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, range(3))
    with served(gallery, image_seconds=0.3) as (address, process):
        names = [upload(address, *form(80, 100)), upload(address, *form(1, 500))]
        job_when(address, names[0], lambda job: job["state"] == "running")
        process.send_signal(signal.SIGTERM)
        assert process.wait(3000) == 0
    lines = [line for line in entries(state_folder(gallery)) if line["deed"] == "indexed"]
    assert sorted((line["job"], line["state"]) for line in lines) == sorted((name, "failed") for name in names)
