"""The service in a separate process: address, warm-up, batches, 503, time-outs, stopping and killing."""

import json
import signal
import socket
import stat
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tbps.errors import SettingsError
from tbps.gallery.gallery import Gallery
from tbps.model.bundle import load
from tbps.server.audit import entries, verify
from tbps.server.running import run
from tbps.server.service import Service
from tbps.server.settings import ServiceSettings, state_folder
from tbps.server.state.layout import SPOOL
from tests.support.colour_encoder import ColourEncoder, write_pictures
from tests.support.processes import ask, begun, form, job_when, metric, ready, search, served, started, upload
from tests.support.served import make_gallery


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    return make_gallery(tmp_path, range(6))


def test_concurrent_searches_share_a_pass_and_one_in_progress_is_answered_at_the_end(gallery: Path) -> None:
    with served(gallery, 1.0, batch_window=50) as (address, process):
        ready(address)
        before = metric(address, "tbps_texts_encoded_together_count")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: search(address, f"a man in coat {n}"), range(8)))
            assert [status for status, _, _ in answers] == [200] * 8
            assert metric(address, "tbps_texts_encoded_together_count") - before <= 3
            assert metric(address, "tbps_texts_encoded_together_sum") >= 8
            begun(gallery).unlink()
            under_way = pool.submit(search, address)
            until = time.monotonic() + 3000
            while not begun(gallery).exists():
                assert time.monotonic() < until
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            assert under_way.result()[0] == 200, "a request in progress is answered"
        assert process.wait(3000) == 0
    verdict = verify(state_folder(gallery))
    assert (verdict.lines, verdict.wrong) == (9, None)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{address}/healthz", timeout=3000)


def test_too_many_and_too_slow_requests_are_answered_503(gallery: Path) -> None:
    with served(gallery, 0.5, waiting=0, at_once=8) as (address, _):
        ready(address)
        with ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda n: search(address, f"man {n}"), range(24)))
        refused = [answer for answer in answers if answer[0] == 503]
        assert {status for status, _, _ in answers} == {200, 503} and len(answers) - len(refused) >= 8
        assert all(int(headers["retry-after"]) >= 1 for _, _, headers in refused)
        assert {body["error"]["code"] for _, body, _ in refused} == {"busy"}
    lines = verify(state_folder(gallery)).lines
    with served(gallery, 4.0, timeout=1.0) as (address, process):
        status, body, _ = search(address)
        assert (status, body["error"]["code"]) == (503, "timeout")
        process.send_signal(signal.SIGINT)
        assert process.wait(3000) == 0
    (line,) = list(entries(state_folder(gallery)))[lines:]
    assert (line["deed"], line["ended"], line["code"]) == ("search", "failed", "timeout")
    assert (line.get("asked") or json.loads(line["sent"])) == {"texts": [{"text": "a man"}], "k": 3}
    assert "shown" not in line, "images that were not shown are not logged as shown"


def test_a_service_that_is_killed_while_it_indexes(gallery: Path) -> None:
    """Answered requests are not lost, the log is intact; the next start clears the spool and shows the jobs as failed."""
    body, headers = form(300, 100)
    spool = state_folder(gallery) / SPOOL
    with served(gallery, image_seconds=0.4) as (address, process):  # commits after 256 rows, four passes of the tower
        done = upload(address, *form(1, 500))
        job_when(address, done, lambda job: job["state"] == "done")
        running, waiting = upload(address, body, headers), upload(address, *form(2, 600))
        job_when(address, running, lambda job: job["done"] >= 256)
        process.kill()
        process.wait()
    assert any((spool / "jobs").iterdir())
    assert verify(state_folder(gallery)).wrong is None
    (state_folder(gallery) / "jobs" / f".{running}.json.x.part").write_bytes(
        b'{"id":'
    )  # as after a kill while the record is written
    with served(gallery) as (address, process):
        jobs = {job["id"]: job for job in ask(address, "/v1/index")[1]["jobs"]}
        assert list(jobs) == [waiting, running, done], "newest first"
        assert [jobs[name]["state"] for name in (waiting, running, done)] == ["failed", "failed", "done"]
        assert (jobs[running]["done"], jobs[running]["total"], jobs[done]["added"]) == (256, 300, 1)
        assert all(
            "the service stopped" in jobs[name]["message"] and "again" in jobs[name]["message"] for name in (waiting, running)
        )
        assert list((spool / "jobs").iterdir()) == []
        kept = list((state_folder(gallery) / "jobs").iterdir())
        assert {file.name for file in kept} == {f"{name}.json" for name in jobs}
        assert {stat.S_IMODE(file.stat().st_mode) for file in kept} == {0o600}
        assert ask(address, "/v1/gallery")[1]["images"] == 263, "committed rows stay"
        again = job_when(address, upload(address, body, headers), lambda job: job["state"] == "done")
        assert (again["added"], ask(address, "/v1/gallery")[1]["images"]) == (44, 307)
        process.send_signal(signal.SIGTERM)
        assert process.wait(3000) == 0


def test_a_service_that_is_stopped_while_it_indexes(gallery: Path) -> None:
    """After the next start, the jobs of a stopped service are shown like those of a killed one."""
    with served(gallery, image_seconds=0.3) as (address, process):
        running, waiting = upload(address, *form(200, 100)), upload(address, *form(2, 500))
        cancelled = upload(address, *form(3, 600))
        assert ask(address, f"/v1/index/{cancelled}", method="DELETE")[1]["state"] == "cancelled"
        job_when(address, running, lambda job: job["state"] == "running")
        process.send_signal(signal.SIGTERM)
        assert process.wait(3000) == 0
    assert not (state_folder(gallery) / SPOOL).exists()
    with served(gallery) as (address, _):
        jobs = ask(address, "/v1/index")[1]["jobs"]
        assert [(job["id"], job["state"]) for job in jobs] == [(cancelled, "cancelled"), (waiting, "failed"), (running, "failed")]
        assert all("the service stopped" in job["message"] for job in jobs[1:])


def test_a_port_in_use(gallery: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service = Service(gallery, ColourEncoder(), ServiceSettings(port=taken.getsockname()[1]))
        with pytest.raises(SettingsError, match="--port"):
            run(service, lambda address: None)
        service.stop()


def test_the_command_without_settings(tmp_path: Path, tiny_model_folder: Path) -> None:
    """`tbps serve` prints its address, listens on the loopback only, and searches with the model of the gallery."""
    gallery, model = tmp_path / "gallery", load(tiny_model_folder)
    Gallery.open(gallery, model).add(list(write_pictures(tmp_path / "photos", 6)))
    with started("-m", "tbps.cli", "serve", str(gallery), "--port", "0") as (address, process):
        found = [(hit["id"], pytest.approx(hit["score"], abs=1e-5)) for hit in search(address)[1]["hits"]]
        assert found == [(hit.id, hit.score) for hit in Gallery.open(gallery, model).search("a man", k=3)]
        assert listens_on(int(address.rpartition(":")[2])) == {"0100007F"}  # 127.0.0.1, as the kernel writes it
        process.send_signal(signal.SIGTERM)
        assert process.wait(3000) == 0
        assert process.stdout is not None and process.stdout.read().strip() == "stopped"


def listens_on(port: int) -> set[str]:
    """Addresses that listen at a port, from the socket table of the kernel."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and int(row[1].partition(":")[2], 16) == port}
