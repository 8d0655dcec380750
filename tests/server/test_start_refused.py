"""`tbps serve` that cannot start: one line, exit code 2, no address."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tbps.errors import StorageError
from tbps.gallery.gallery import Gallery
from tbps.gallery.store.manifest import recorded
from tbps.model.bundle import load
from tbps.server.audit import Audit
from tbps.server.callers.keys import Keys, Role
from tbps.server.running import run
from tbps.server.service import Service
from tbps.server.settings import ServiceSettings, state_folder
from tbps.server.state.opening import open_state
from tests.support.colour_encoder import write_pictures
from tests.support.processes import ask, form, search, started

FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # like a full disk: every write fails
sys.argv = ["tbps", *sys.argv[1:]]
from tbps.cli import main
main()
"""
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("made")
    Gallery.open(folder / "gallery", load(tiny_model_folder)).add(list(write_pictures(folder / "photos", 4)))
    return folder / "gallery"


@pytest.fixture
def gallery(made: Path, tmp_path: Path, tiny_model_folder: Path) -> Path:
    (tmp_path / "model").symlink_to(tiny_model_folder)
    return Path(shutil.copytree(made, tmp_path / "gallery"))


def refused(*command: str) -> str:
    """Run a command that ends at once and return its output."""
    ran = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert ran.returncode == 2 and "http://" not in ran.stdout, ran.stdout + ran.stderr
    assert len(ran.stderr.splitlines()) == 1 and "Traceback" not in ran.stderr, ran.stderr
    return ran.stderr


def serve(gallery: Path, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tbps.cli", "serve", str(gallery), "--port", "0", *options)


def may_mount() -> bool:
    probe = ["unshare", "-m", "sh", "-c", "mount --bind /tmp /tmp"]
    return shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True, check=False).returncode == 0


mounts = pytest.mark.skipif(not may_mount(), reason="this user may not mount anything")


def test_a_full_disk(gallery: Path) -> None:
    said = refused(sys.executable, "-c", FULL, "serve", str(gallery), "--port", "0")
    assert "is full" in said and str(state_folder(gallery)) in said


def test_a_folder_that_cannot_be_made(gallery: Path) -> None:
    assert "/proc/tbps-state" in refused(*serve(gallery, "--state", "/proc/tbps-state"))


@mounts
def test_a_read_only_disk(gallery: Path) -> None:
    """With an existing state folder, as after a first start, and without one."""
    for has_state in (False, True):
        if has_state:
            Keys(state_folder(gallery)).add("x", Role.viewer)
        said = refused("unshare", "-m", "sh", "-c", READ_ONLY, str(gallery.parent), *serve(gallery))
        assert str(state_folder(gallery)) in said and "cannot be written" in said


def test_a_port_that_is_taken(gallery: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "--port" in refused(*serve(gallery)[:-2], "--port", str(taken.getsockname()[1]))


def begun(gallery: Path) -> None:
    """Run the steps of `tbps serve` before it prints an address."""
    service = Service(gallery, load(gallery.parent / "model"), ServiceSettings(port=0))
    run(service, lambda address: pytest.fail(f"it printed {address}"))


def test_keys_that_cannot_be_read(gallery: Path) -> None:
    Keys(state_folder(gallery)).add("x", Role.viewer)
    open_state(state_folder(gallery), gallery, recorded(gallery))
    (state_folder(gallery) / "keys.json").write_text("{")
    with pytest.raises(StorageError, match=r"keys\.json cannot be read"):
        begun(gallery)
    (state_folder(gallery) / "keys.json").unlink()
    (state_folder(gallery) / "keys.json").mkdir()
    with pytest.raises(StorageError, match=r"keys\.json cannot be read"):
        begun(gallery)


def test_a_log_that_lost_its_head(gallery: Path) -> None:
    """The start is refused, since every search must be logged before it is answered."""
    Audit(state_folder(gallery)).write("x", "", "search")
    (state_folder(gallery) / "audit.head").unlink()
    with pytest.raises(StorageError, match="tbps audit verify"):
        begun(gallery)


def test_a_gallery_of_another_service(gallery: Path, tmp_path: Path) -> None:
    with started("-m", "tbps.cli", "serve", str(gallery), "--port", "0") as (address, process):
        for options in ((), ("--state", str(tmp_path / "other"))):
            said = refused(*serve(gallery, *options))
            assert f"process {process.pid} on " in said and str(gallery) in said
        assert search(address)[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(3000) == 0
    assert not any(path.name == ".service.json" for path in gallery.iterdir())


@mounts
def test_a_gallery_that_can_only_be_read_is_searched(gallery: Path) -> None:
    """Uploads and erasures are refused, and the start prints a remark."""
    command = ["unshare", "-m", "sh", "-c", READ_ONLY, str(gallery), *serve(gallery)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            address = line[line.index("http://") :].split()[0]
            assert len(search(address)[1]["hits"]) == 3
            body, headers = form(1, 0)
            with pytest.raises(urllib.error.HTTPError) as answer:
                urllib.request.urlopen(urllib.request.Request(f"{address}/v1/index", body, headers), timeout=3000)
            with answer.value as error:
                assert (error.code, json.loads(error.read())["error"]["code"]) == (503, "read_only")
            assert ask(address, "/v1/forget", {"ids": ["0" * 24]})[0] == 503
            process.send_signal(signal.SIGTERM)
            assert process.wait(3000) == 0 and "can only be read" in process.stderr.read()
        finally:
            process.kill()
