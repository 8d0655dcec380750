"""`tbps keys`, `tbps audit` and the settings that `tbps serve` refuses."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tbps.gallery.gallery import Gallery
from tbps.server import Keys, state_folder
from tests.support.colour_encoder import ColourEncoder, write_pictures

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    Gallery.open(tmp_path / "gallery", ColourEncoder()).add(list(write_pictures(tmp_path / "photos", 2)))
    return tmp_path / "gallery"


def test_a_key_is_printed_once_and_listed_without_it(run: Run, gallery: Path) -> None:
    code, out, err = run("keys", "add", gallery, "front desk", "--camera", "lobby", "--camera", "[red]yard")
    assert code == 0 and re.fullmatch(r"tbps_[\w-]{43}\n", out) and "once" in err
    key = Keys(state_folder(gallery)).find(out.strip())
    assert key is not None and (key.name, key.role, key.cameras) == ("front desk", "viewer", ("lobby", "[red]yard"))
    code, listed, _ = run("keys", "list", gallery)
    assert code == 0 and all(text in listed for text in ("front desk", "viewer", "lobby", "[red]yard"))
    _, as_json, _ = run("keys", "list", gallery, "--json")
    assert [set(entry) for entry in json.loads(as_json)] == [{"id", "name", "role", "cameras", "created"}]
    assert out.strip() not in listed + as_json and key.hash not in listed + as_json
    assert run("keys", "remove", gallery, "front desk")[0] == 0
    assert Keys(state_folder(gallery)).find(out.strip()) is None
    _, shown, _ = run("audit", "show", gallery)
    assert "key added" in shown and "key removed" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("keys", "add", "{gallery}", "x", "--role", "king"), "viewer, curator, administrator"),
        (("keys", "add", "{gallery}", "x", "--role", "administrator", "--camera", "lobby"), "every camera"),
        (("keys", "add", "{gallery}", "a/b"), "letters"),
        (("keys", "remove", "{gallery}", "nobody"), "nobody"),
        (("keys", "add", "{gallery}/nowhere", "x"), "no gallery"),
        (("serve", "{gallery}/nowhere"), "no gallery"),
        (("serve", "{gallery}", "--allow-host", "https://search.example.org/"), "did you mean 'search.example.org'?"),
        (("serve", "{gallery}", "--trusted-proxy", "localhost"), "127.0.0.1"),
    ],
)
def test_errors_name_the_reason(run: Run, gallery: Path, arguments: tuple[str, ...], says: str) -> None:
    code, _, err = run(*(part.replace("{gallery}", str(gallery)) for part in arguments))
    assert code == 2 and says in err and len(err.splitlines()) == 1


def test_serve_requires_keys_to_listen_on_other_addresses(run: Run, gallery: Path, tiny_model_folder: Path) -> None:
    from tbps.model.bundle import load

    Gallery.open(gallery.parent / "other", load(tiny_model_folder)).add(list((gallery.parent / "photos").iterdir()))
    for option in (("--host", "0.0.0.0"), ("--allow-host", "search.example.org")):
        code, _, err = run("serve", gallery.parent / "other", *option)
        assert code == 2 and "tbps keys add" in err and option[1] in err


def test_audit_verify_and_show(run: Run, gallery: Path) -> None:
    for name in ("one", "two", "three"):
        run("keys", "add", gallery, name)
    code, out, _ = run("audit", "verify", gallery)
    noted = out.splitlines()[-1]
    assert code == 0 and re.fullmatch(r"3:[0-9a-f]{64}", noted)
    assert run("audit", "verify", gallery, "--noted", noted)[0] == 0
    for wrong in ("x", "1,200:" + noted.partition(":")[2], f" {noted}", f"0{noted}", noted[:-1]):
        code, _, err = run("audit", "verify", gallery, "--noted", wrong)
        assert code == 2 and "such as 12:" in err and len(err.splitlines()) == 1
    _, shown, _ = run("audit", "show", gallery, "--last", 2, "--json")
    assert [json.loads(line)["of"] for line in shown.splitlines()] == ["two", "three"]
    assert run("audit", "show", gallery, "--who", "nobody")[1] == ""
    log = state_folder(gallery) / "audit.jsonl"
    log.write_text(log.read_text().replace('"two"', '"too"'))
    code, _, err = run("audit", "verify", gallery)
    assert code == 1 and "line 2: was changed" in err
    os.truncate(log, 0)
    assert "were cut off" in run("audit", "verify", gallery)[2]
    assert run("audit", "verify", gallery, "--noted", noted)[0] == 1
