"""Connections with real sockets: slow senders, incomplete requests, floods, few file descriptors, proxies.

Time limits are set to small values. No test asserts how quickly something happens; `PATIENCE` only ends a test that would hang.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tbps.errors import RequestError
from tbps.gallery.store.lock import lock
from tbps.server.audit import entries, verify
from tbps.server.callers.limits import Patience, Places, Ticket
from tbps.server.connections import Connections
from tbps.server.service import Service
from tbps.server.settings import ServiceSettings, state_folder
from tests.support.colour_encoder import ColourEncoder
from tests.support.hostile import picture
from tests.support.processes import PROGRAM, environment
from tests.support.served import bearer, listening, make_gallery, send, serving

PATIENCE = 300.0
JSON = "Content-Type: application/json\r\nX-Tbps: 1\r\n"
FORM = "Content-Type: multipart/form-data; boundary=x\r\nX-Tbps: 1\r\n"
READING = {
    ("/v1/search", JSON),
    ("/v1/similar", JSON),
    ("/v1/similar", FORM),
    ("/v1/feedback", JSON),
    ("/v1/explain", JSON),
    ("/v1/index", FORM),
    ("/v1/forget", JSON),
}
ASKED = {"texts": [{"text": "red"}], "k": 2}


class SlowEncoder(ColourEncoder):
    """Encoder that takes `seconds` per pass over texts."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        time.sleep(self._seconds)
        return super().encode_texts(texts, batch_size)


class Served:
    """A service of the process `pid` at a port of this machine."""

    def __init__(self, port: int, pid: int) -> None:
        self.port, self.pid = port, pid

    def opened(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def sent(self, text: str | bytes) -> socket.socket:
        """Open a connection and send `text`."""
        connection = self.opened()
        connection.sendall(text.encode() if isinstance(text, str) else text)
        return connection

    def ask(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        content = None if body is None else json.dumps(body).encode()
        given = {"X-Tbps": "1", "Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", content, given)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def connections(self) -> int:
        """Number of connections that the process has open at its port."""
        held = set()
        for number in os.listdir(folder := f"/proc/{self.pid}/fd"):
            with suppress(OSError):  # closed meanwhile
                held.add(os.readlink(f"{folder}/{number}"))
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        here = [row for row in rows if row[1].endswith(f":{self.port:04X}") and row[3] != "0A"]  # 0A listens
        return sum(f"socket:[{row[9]}]" in held for row in here)

    def files(self) -> int:
        """Number of files and sockets that the process has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@contextmanager
def served(gallery: Path, seconds: float = 0.0, **settings: Any) -> Iterator[Served]:
    """Run a service in a thread of this process. seconds: duration of a pass over texts."""
    service = Service(gallery, SlowEncoder(seconds), ServiceSettings.parse({"shutdown": 1, "timeout": PATIENCE, **settings}))
    with listening(service) as address:
        yield Served(int(address.rpartition(":")[2]), os.getpid())


@contextmanager
def served_apart(gallery: Path, files: int, **settings: Any) -> Iterator[tuple[Served, Path]]:
    """Run a service in a separate process with a limit on file descriptors; yields it and its log file."""
    command = [sys.executable, "-c", PROGRAM, str(gallery), "0", json.dumps(settings), "0"]
    command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
    log = gallery.parent / f"log-{time.monotonic_ns()}"
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment())
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), log.read_text()
        yield Served(int(line.rpartition(":")[2]), process.pid), log
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    return make_gallery(tmp_path, range(6))


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def rest(connection: socket.socket) -> bytes:
    """Receive until the service closes the connection."""
    parts = []
    with connection:
        try:
            while part := connection.recv(2**16):
                parts.append(part)
        except ConnectionResetError:
            pass
    return b"".join(parts)


def until_end(connection: socket.socket) -> bytes:
    """Receive one answer, up to the end of its JSON, on a connection that stays open."""
    answer = b""
    while not answer.endswith(b"}"):
        answer += connection.recv(2**16)
    return answer


@contextmanager
def dripping(connection: socket.socket, content: bytes) -> Iterator[None]:
    """Send `content` repeatedly, with pauses, until the block ends or the connection is closed."""
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.05):
            try:
                connection.sendall(content)
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def head(path: str, more: str, length: int = 1000, method: str = "POST") -> str:
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}Content-Length: {length}\r\n\r\n"


def test_connections_without_complete_headers_are_closed(gallery: Path) -> None:
    with served(gallery, header_seconds=2.0, idle_seconds=PATIENCE) as door:
        silent, half, drops = door.opened(), door.sent("GET / HTTP/1.1\r\nHost:"), door.sent("GET / HTTP/1.1\r\nX-A: ")
        with dripping(drops, b"a"):  # a byte now and then gives no more time
            assert rest(silent) == rest(half) == rest(drops) == b""
        request = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        with door.sent(request) as again:
            for _ in range(3):  # one connection, several requests
                assert until_end(again).startswith(b"HTTP/1.1 200")
                again.sendall(request.encode())
            until_end(again)
            again.sendall(request[:20].encode())
            assert rest(again) == b"", "later requests of a connection have the same time limit for headers"
        assert door.ask("/healthz")[0] == 200


def test_idle_connections_are_closed(gallery: Path) -> None:
    with served(gallery, header_seconds=PATIENCE, idle_seconds=0.5) as door:
        answer = rest(door.sent("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
        assert answer.startswith(b"HTTP/1.1 200") and answer.count(b"HTTP/1.1") == 1


def test_bodies_are_not_read_before_the_caller_is_identified(gallery: Path) -> None:
    """The service neither sends 100 Continue nor waits for the body."""
    viewer = bearer(gallery, "viewer")["Authorization"]
    with served(gallery, body_seconds=300, linger_seconds=300) as door:
        for path, kind in sorted(READING):
            for more, status in (
                ("", b"401"),
                ("Authorization: Bearer wrong\r\n", b"401"),
                ("Cookie: tbps_session=x\r\n", b"401"),
                ("Expect: 100-continue\r\n", b"401"),
                (f"Authorization: {viewer}\r\n", b"403" if path in ("/v1/index", "/v1/forget") else None),
            ):
                if status is None:
                    continue
                with door.sent(head(path, kind + more)) as connection:
                    answer = connection.recv(2**16)
                    assert answer.startswith(b"HTTP/1.1 " + (b"429" if b" 429 " in answer else status)), answer[:80]
                    assert b"connection: close" in answer
                    while b"error" not in answer:
                        answer += connection.recv(2**16)
                    assert connection.recv(1) == b"", "the service closes the connection after the answer"


def test_incomplete_bodies_take_no_places(gallery: Path) -> None:
    """Callers with all rights send more incomplete requests than there are places; other requests are answered meanwhile."""
    with served(gallery, body_seconds=3.0, at_once=4, waiting=4) as door, ExitStack() as stack:
        halves = [
            stack.enter_context(door.sent(head(path, JSON) + "{")) for path in ("/v1/forget", "/v1/search") for _ in range(30)
        ]
        for _ in range(3):
            assert door.ask("/v1/search", ASKED)[0] == 200
        for half in halves:
            answer = rest(half)
            assert answer.startswith(b"HTTP/1.1 408") and b'"slow"' in answer
    lines = [line for line in entries(state_folder(gallery)) if line.get("code") == "slow"]
    assert len(lines) == 60 and {line["ended"] for line in lines} == {"refused"}
    assert verify(state_folder(gallery)).wrong is None


def test_slow_bytes_do_not_extend_the_time_of_a_small_body(gallery: Path) -> None:
    with served(gallery, body_seconds=0.6) as door:
        connection = door.sent(head("/v1/search", JSON, 100_000) + "{")
        with dripping(connection, b" "):
            assert rest(connection).startswith(b"HTTP/1.1 408")


def test_time_of_uploads_grows_with_the_bytes_received() -> None:
    patience = Patience(10.0, rate=1000, stall=30.0)
    assert (patience.left(0, 0), patience.left(4, 0), patience.left(12, 5000)) == (10, 6, 3)
    assert patience.left(0, 10**9) == 30 and patience.left(11, 0) < 0
    assert Patience(10.0).left(4, 10**6) == 6, "without a rate, received bytes add no time"


def test_a_refusal_reaches_a_client_that_is_still_sending(gallery: Path) -> None:
    """If the service closed the connection at once, the client would lose the answer."""
    bearer(gallery, "viewer")
    with served(gallery, linger_seconds=PATIENCE) as door:
        for size in (200_000, 5_000_000):
            connection = door.sent(head("/v1/index", FORM, size))
            with connection:
                for _ in range(size // 50_000):
                    connection.sendall(bytes(50_000))
                answer = connection.recv(2**16)
            assert answer.startswith(b"HTTP/1.1 401"), answer[:100]
        assert door.ask("/healthz")[0] == 200


FLOODS = {
    "silence": b"",
    "half headers": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: ",
    "half sign-ins": (head("/v1/session", JSON) + "{").encode(),
    "half erasures": (head("/v1/forget", JSON) + "{").encode(),
    "half uploads": (head("/v1/index", FORM, 10**9) + "--x\r\n").encode(),
    "nonsense": b"\0\1\2 nonsense\r\n\r\n",
}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """A service with 256 descriptors that waits long for slow senders."""
    gallery = make_gallery(tmp_path_factory.mktemp("narrow"), range(6))
    with served_apart(gallery, 256, header_seconds=300, body_seconds=300) as running:
        assert reached(running[0])
        yield running


@pytest.mark.parametrize("kind", list(FLOODS))
def test_reachable_with_256_descriptors_however_many_connect(narrow: tuple[Served, Path], kind: str) -> None:
    """Requests of others are answered, the log stays small, and the descriptors suffice."""
    door, log = narrow
    logged = log.stat().st_size
    with ExitStack() as stack:
        before = door.files()
        for number in range(400):
            try:
                connection = stack.enter_context(door.opened())
                connection.sendall(FLOODS[kind])
            except ConnectionError:
                continue  # closed already for a later connection
            if number % 40 == 39:
                assert reached(door), f"after {number} connections"
        assert door.files() < 250
        assert reached(door)
        stack.close()
        until(lambda: door.files() <= before + 10)
        assert log.stat().st_size - logged < 20_000, log.read_bytes()[logged:][:2000]


def reached(door: Served) -> bool:
    """Whether a request is answered. Like a browser, tries again if its connection was closed for another one."""
    for _ in range(3):
        try:
            status, _ = door.ask("/v1/session")
        except (urllib.error.URLError, ConnectionError):
            continue
        if status == 200:
            return True
    return False


def test_nonsense_does_not_fill_the_log(gallery: Path) -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    with served_apart(gallery, 1024) as (door, log):
        for content in (b"nonsense\r\n\r\n", upgrade, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"):
            for _ in range(200):
                assert rest(door.sent(content)).startswith((b"HTTP/1.1 4", b"HTTP/1.1 2"))
        said = log.read_text()
        assert said.count("Invalid HTTP request") <= 20 and "left out" in said and len(said) < 20_000


def test_connections_with_a_request_in_progress_are_not_closed(gallery: Path) -> None:
    """If all connections of an address wait for answers, one more is answered 503."""
    with served(gallery, seconds=1.0, connections=12, batch_window=0) as door, ThreadPoolExecutor(6) as pool:
        until(lambda: door.ask("/healthz")[1]["status"] == "ready")

        def search(number: int) -> int:
            """Status of a search. The search is repeated if its connection was closed for another one or it was answered 503."""
            while True:
                try:
                    status, _ = door.ask("/v1/search", {"texts": [{"text": f"red {number}"}]})
                except (urllib.error.URLError, ConnectionError):
                    continue
                if status != 503:
                    return status

        searches = [pool.submit(search, number) for number in range(6)]
        seen = set()
        while not all(each.done() for each in searches):
            try:
                answer = rest(door.sent("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"))
            except ConnectionError:
                continue
            seen.add(answer[:12])
            if b" 503 " in answer[:16]:
                assert b"retry-after: 1" in answer and b'"busy"' in answer
        assert [each.result() for each in searches] == [200] * 6
        assert b"HTTP/1.1 503" in seen
        assert door.ask("/healthz")[0] == 200


def test_connections_whose_client_reads_nothing_are_closed(gallery: Path) -> None:
    with served(gallery, timeout=0.5, linger_seconds=0.3, idle_seconds=1.0) as door, ExitStack() as stack:
        for _ in range(5):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", door.port))
            stack.enter_context(connection)
            connection.settimeout(0.5)
            with suppress(TimeoutError, ConnectionError):  # far more than the buffers of both sides
                connection.sendall(b"GET /v1/openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 2000)
        until(lambda: door.connections() == 0)
        until(lambda: door.ask("/healthz")[0] == 200)  # on a busy machine this request may time out too


def test_a_client_that_disconnects_leaves_a_line_and_frees_its_place(gallery: Path) -> None:
    with served(gallery, seconds=0.5, at_once=2, waiting=2, batch_window=0) as door:
        until(lambda: door.ask("/healthz")[1]["status"] == "ready")
        body = json.dumps(ASKED)
        for _ in range(4):
            door.sent(head("/v1/search", JSON, len(body)) + body).close()
        until(lambda: len(list(entries(state_folder(gallery)))) == 4)
        assert door.ask("/v1/search", ASKED)[0] == 200
    lines = list(entries(state_folder(gallery)))
    assert [line.get("asked") or json.loads(line["sent"]) for line in lines] == [ASKED] * 5 and verify(
        state_folder(gallery)
    ).wrong is None
    assert "shown" in lines[-1]


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        ((), "203.0.113.7", "127.0.0.1"),
        (("127.0.0.1",), "203.0.113.7", "203.0.113.7"),
        (("127.0.0.0/8", "10.0.0.0/8"), "6.6.6.6, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        (("10.0.0.0/8",), "203.0.113.7", "127.0.0.1"),
        (("127.0.0.1",), "nonsense", "127.0.0.1"),
    ],
)
def test_the_address_of_a_wrong_key_is_logged(gallery: Path, proxies: Sequence[str], forwarded: str, address: str) -> None:
    bearer(gallery, "viewer")
    with served(gallery, trusted_proxies=list(proxies), failures_per_minute=2) as door:
        wrong = {"Authorization": "Bearer x", "X-Forwarded-For": forwarded}
        assert door.ask("/v1/gallery", headers=wrong)[0] == 401
        codes = {door.ask("/v1/gallery", headers={**wrong, "X-Forwarded-For": f"203.0.113.{n}"})[0] for n in range(20, 25)}
        assert codes == ({401} if "127.0.0" in "".join(proxies) else {401, 429}), "wrong keys are counted per address"
    (first, *_) = [entry["address"] for entry in entries(state_folder(gallery)) if entry["deed"] == "refused key"]
    assert first == address


def test_the_limit_of_connections_depends_on_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, most in ((256, 128), (1024, 896), (65_536, 1000), (64, 8)):
        monkeypatch.setattr("tbps.server.connections.resource.getrlimit", lambda _, files=files: (files, files))
        connections = Connections(ServiceSettings(), ServiceSettings().addresses())
        assert (connections.most, connections.most_of_one) == (most, most // 2)


def waiting(key: str, privileged: bool = False) -> Ticket:
    return Ticket(time.monotonic() + 100, key=key, privileged=privileged)


def test_one_key_gets_half_of_the_places_and_administrators_keep_some() -> None:
    places = Places(16)

    def taken(key: str, privileged: bool = False) -> list[Ticket]:
        found = []
        while True:
            found.append(waiting(key, privileged))
            try:
                places.take(found[-1])
            except RequestError as error:
                assert (error.status, error.code) == (503, "busy")
                return found[:-1]

    first = taken("a")
    assert len(first) == 8, "half"
    places.take(first[0])
    assert places.taken == 8, "a request takes one place only"
    assert len(taken("b")) == 6 and len(taken("c")) == 0
    assert len(taken("chief", privileged=True)) == 2
    for each in first:
        places.leave(each)
        places.leave(each)
    assert places.taken == 8 and len(taken("c")) == 6
    places.take(Ticket(0.0))
    assert places.taken == 14, "requests of unidentified callers take no place"
    small = Places(1)
    small.take(waiting("a"))


def test_uploads_of_one_key_leave_room_for_others(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0])
    one, other = bearer(gallery, "curator"), bearer(gallery, "administrator")
    with serving(gallery, jobs=4) as client, lock(gallery):
        answers = [send(client, ("a.jpg", picture(seed=seed)), headers=one) for seed in range(1, 4)]
        assert [answer.status_code for answer in answers] == [202, 202, 503] and int(answers[2].headers["Retry-After"]) > 0
        assert send(client, ("b.jpg", picture(seed=9)), headers=other).status_code == 202
        for answer in answers[:2]:
            client.delete(f"/v1/index/{answer.json()['job']['id']}", headers=one)
