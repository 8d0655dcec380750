"""Job records: number kept, retention time, owners, and damaged records."""

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tbps.gallery.store.lock import lock
from tbps.server.settings import state_folder
from tbps.server.uploads.records import STOPPED, Job, JobRecords, State, outdated
from tests.support.hostile import picture, zipped
from tests.support.served import bearer, ended, make_gallery, send, serving


def job(number: int, state: State = State.done, days: float = 0.0, owner: str = "") -> Job:
    """A job created `days` ago; jobs with larger numbers are slightly younger."""
    created = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days) + timedelta(milliseconds=number)
    return Job(f"{number:024x}", owner, state, created.isoformat(timespec="microseconds"), 3, 4, skipped=(("a.jpg", "is none"),))


def test_records_are_read_oldest_first(tmp_path: Path) -> None:
    records = JobRecords(tmp_path)
    states = {3: State.done, 1: State.running, 2: State.cancelled, 4: State.waiting, 0: State.failed}
    assert records.read() == []
    jobs = {number: job(number, state) for number, state in states.items()}
    for each in jobs.values():
        records.keep(each)
    found = records.read()
    assert [each.id for each in found] == [jobs[number].id for number in range(5)]
    assert found == [jobs[number] for number in range(5)] == records.read()
    assert stat.S_IMODE((tmp_path / "jobs").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "jobs").iterdir()} == {0o600}
    records.drop(found[0])
    records.drop(found[0])
    assert records.read() == found[1:]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"id": "1"}',
        json.dumps({"id": "x", "owner": "", "state": "done", "created_at": "now"}).encode(),
    ],
)
def test_a_damaged_record_is_removed_and_the_others_stay(tmp_path: Path, content: bytes) -> None:
    records = JobRecords(tmp_path)
    records.read()
    records.keep(job(1))
    (tmp_path / "jobs" / f"{3:024x}.json").write_bytes(content)
    (tmp_path / "jobs" / f".{4:024x}.json.abc.part").write_bytes(b"zebra.jpg")
    (tmp_path / "jobs" / f"{2:024x}.json").write_bytes((tmp_path / "jobs" / f"{1:024x}.json").read_bytes())  # of another id
    assert [each.id for each in records.read()] == [job(1).id]
    assert [file.name for file in (tmp_path / "jobs").iterdir()] == [f"{1:024x}.json"]


def test_files_that_are_no_records_stay(tmp_path: Path) -> None:
    """Files with other names and targets of links are neither removed nor read."""
    records = JobRecords(tmp_path)
    records.read()
    records.keep(job(1))
    foreign = {"thesis.txt": b"mine", "x.json": b"{", ".0.json.abc.part": b"", f"{0xABC:024X}.json": b"{"}
    for name, content in foreign.items():
        (tmp_path / "jobs" / name).write_bytes(content)
    (tmp_path / "jobs" / f"{6:024x}.json").mkdir()
    (tmp_path / "elsewhere.json").write_bytes(b"{")
    (tmp_path / "jobs" / f"{7:024x}.json").symlink_to(tmp_path / "elsewhere.json")
    before = sorted(path.name for path in (tmp_path / "jobs").iterdir())
    assert [each.id for each in records.read()] == [job(1).id]
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == before
    assert {name: (tmp_path / "jobs" / name).read_bytes() for name in foreign} == foreign


def test_at_most_200_records_of_30_days_are_kept() -> None:
    at = datetime.now(UTC).replace(tzinfo=None).isoformat()
    young = [job(number) for number in range(205)]
    assert outdated(young, at) == young[:5]
    busy = [job(0, State.running), job(1, State.waiting), *young[2:]]
    assert outdated(busy, at) == young[2:7], "jobs that have not ended are kept"
    old = [job(0, days=31), job(1, State.running, days=31), job(2, days=29)]
    assert outdated(old, at) == old[:1]


def test_an_interrupted_job_is_shown_as_failed_and_logged_once(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0])
    cut = replace(job(1, State.running, owner="k1"), owner_name="front desk")
    for each in (job(0), cut, job(2, State.waiting)):
        JobRecords(state_folder(gallery)).keep(each)
    for _ in range(2):
        with serving(gallery) as client:
            jobs = client.get("/v1/index").json()["jobs"]
        assert [(each["state"], each["message"]) for each in jobs] == [("failed", STOPPED), ("failed", STOPPED), ("done", "")]
        logged = [json.loads(line) for line in (state_folder(gallery) / "audit.jsonl").read_text().splitlines()]
        ends = [(line["who"], line["key"], line["job"], line["state"]) for line in logged if line["deed"] == "indexed"]
        assert ends == [("front desk", "k1", cut.id, "failed"), ("", "", job(2).id, "failed")]


def test_a_service_drops_old_records_and_keeps_the_owners_of_others(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0])
    lobby, yard, everything = (
        bearer(gallery, "curator", ("lobby",)),
        bearer(gallery, "curator", ("yard",)),
        bearer(gallery, "curator"),
    )
    records = JobRecords(state_folder(gallery))
    for number in range(203):
        records.keep(job(number, days=31 if number < 2 else 1))
    archive = zipped(**{"zebra.bmp": picture("BMP"), "1.jpg": picture()})
    with serving(gallery) as client:
        mine = ended(client, send(client, ("a.zip", archive), camera="lobby", headers=lobby), headers=lobby)
        with lock(gallery):
            cut = send(client, ("b.jpg", picture(seed=3)), camera="yard", headers=yard).json()["job"]
    files = {file.name for file in (state_folder(gallery) / "jobs").iterdir()}
    assert len(files) == 200 and f"{3:024x}.json" not in files and f"{5:024x}.json" in files
    with serving(gallery) as client:

        def seen(headers: dict[str, str]) -> list[str]:
            return [each["id"] for each in client.get("/v1/index", headers=headers).json()["jobs"]]

        assert seen(lobby) == [mine["id"]] and seen(yard) == [cut["id"]]
        assert len(seen(everything)) == 200 and seen(everything)[:2] == [cut["id"], mine["id"]]
        assert client.get(f"/v1/index/{mine['id']}", headers=lobby).json() == mine
        assert client.get(f"/v1/index/{mine['id']}", headers=yard).status_code == 404
        assert client.delete(f"/v1/index/{mine['id']}", headers=yard).status_code == 404
        assert client.delete(f"/v1/index/{mine['id']}", headers=lobby).json() == mine, "a final state does not change"
        assert [each["name"] for each in mine["skipped"]] == ["a.zip/zebra.bmp"]
