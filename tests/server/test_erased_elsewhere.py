"""A running service while another process erases images, or is killed during an erasure."""

import gc
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tbps.gallery.gallery import Gallery
from tbps.gallery.search.query import Query, Text
from tbps.gallery.store.erasure import erasing
from tbps.gallery.store.layout import ERASURE_FILE
from tbps.gallery.store.lock import lock
from tbps.preprocess.image import open_image
from tbps.server.callers.gate import caller_with
from tests.support.colour_encoder import ColourEncoder, write_pictures
from tests.support.processes import ask, environment, ready, search, served
from tests.support.served import bearer, make_gallery, service_of, serving

WHO = "quagga person"
EVERYTHING = {"texts": [{"text": "a man"}], "k": 50}
FORGET = """
import os, sys
import tbps.gallery.store.erasure as erasure, tbps.gallery.store.layout as layout
from tbps.gallery.gallery import Gallery
from tests.support.colour_encoder import ColourEncoder

def dying(do):
    def die(*arguments, **more):
        if os.path.exists(os.path.join(sys.argv[1], "erasure.json")):
            os.kill(os.getpid(), 9)
        return do(*arguments, **more)
    return die

where = {"begun": (erasure, "_rewrite"), "copied": (erasure, "replace_head"), "replaced": (layout, "_sweep_tables")}
if sys.argv[2] != "whole":
    module, name = where[sys.argv[2]]
    setattr(module, name, dying(getattr(module, name)))
Gallery.open(sys.argv[1], ColourEncoder()).forget(identity=sys.argv[3])
"""


def forget_elsewhere(gallery: Path, until: str = "whole", who: str = WHO) -> None:
    """Erase a person in another process. until: function at which that process is killed."""
    ran = subprocess.run(
        [sys.executable, "-c", FORGET, str(gallery), until, who], env=environment(), capture_output=True, check=False
    )
    assert ran.returncode == (0 if until == "whole" else -signal.SIGKILL), ran.stderr


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """Gallery of eight images, and two of the person to erase."""
    folder = make_gallery(tmp_path, range(8))
    photos = sorted((tmp_path / "photos").iterdir())[8:10]
    told = [{"camera": "lobby", "identity": WHO, "tracklet": "t-quagga", "age": 90 + n} for n in range(2)]
    Gallery.open(folder, ColourEncoder()).add(photos, told)
    return folder


def ids_of(gallery: Path, who: str = WHO) -> list[str]:
    page = Gallery.open(gallery, ColourEncoder()).find(Query(texts=(Text(text="x"),), k=50, equals={"identity": who}))
    return [hit.id for hit in page.hits]


@pytest.mark.parametrize("until", ["begun", "copied", "replaced"])
def test_an_erasure_whose_process_was_killed_shows_nothing_and_is_completed(gallery: Path, until: str) -> None:
    gone = ids_of(gallery)
    assert len(gone) == 2
    with served(gallery) as (address, _):
        ready(address)
        assert set(gone) < {hit["id"] for hit in ask(address, "/v1/search", EVERYTHING)[1]["hits"]}
        forget_elsewhere(gallery, until)
        first = ask(address, "/v1/search", EVERYTHING)[1]
        assert len(first["hits"]) == first["total"] == 8 and not {hit["id"] for hit in first["hits"]} & set(gone)
        for name in gone:
            assert ask(address, f"/v1/images/{name}")[0] == 404
            assert ask(address, f"/v1/images/{name}/detail")[0] == 404
        told = ask(address, "/v1/gallery")
        assert told[1]["images"] == 8 and WHO not in json.dumps(told[1]) and "t-quagga" not in json.dumps(told[1])
        while (gallery / ERASURE_FILE).exists():  # the service completes it
            assert search(address)[0] == 200
    assert Gallery.open(gallery, ColourEncoder()).info().images == 8
    assert not any(WHO.encode() in file.read_bytes() for file in gallery.rglob("*") if file.is_file())


def test_rows_of_an_unfinished_erasure_are_not_found(gallery: Path) -> None:
    """While the lock is held, as by a process that is erasing, readers get answers as if the rows were erased."""
    gone = ids_of(gallery)
    opened = Gallery.open(gallery, ColourEncoder())
    assert len(opened) == 10 and opened.prepare() is False
    forget_elsewhere(gallery, "begun")
    with lock(gallery):
        for reader in (opened, Gallery.open(gallery, ColourEncoder())):
            assert erasing(gallery) == set(gone)
            found = {
                "all": reader.find(Query(texts=(Text(text="x"),), k=50)),
                "where": reader.find(Query(texts=(Text(text="x"),), k=50, where="age >= 0")),
                "scope": reader.find(Query(texts=(Text(text="x"),), k=50), within=("lobby",)),
                "both": reader.find(Query(texts=(Text(text="x"),), k=50, where="age >= 0"), within=("lobby",)),
            }
            assert {name: page.total for name, page in found.items()} == {"all": 8, "where": 8, "scope": 3, "both": 3}
            for page in found.values():
                assert [hit.attributes["age"] for hit in page.hits] == [int(str(hit.attributes["age"])) for hit in page.hits]
                assert not {hit.id for hit in page.hits} & set(gone)
                for hit in page.hits:  # rows, columns and metadata belong to the same image
                    number = hit.attributes["age"]
                    assert (hit.camera, hit.identity) == (("lobby", "yard", "roof")[number % 3], f"person {number % 5}")
            grouped = reader.find(Query(texts=(Text(text="x"),), k=50, group="identity"))
            assert {hit.group.value for hit in grouped.hits if hit.group} == {f"person {n}" for n in range(5)}
            assert len(reader) == 8 and reader.tracklet("t-quagga") == []
            assert reader.forget(identity=WHO, dry_run=True).images == 0
            summary = reader.summary()
            assert summary is not None and summary.images == 8 and WHO not in str(summary)
            with pytest.raises(Exception, match="no image of the gallery has the id"):
                reader.image(gone[0])
            with pytest.raises(Exception, match="no image of the gallery has the id"):
                reader.find(Query(like=({"id": gone[0]},)))  # type: ignore[arg-type]
    assert opened.find(Query(texts=(Text(text="x"),), k=50)).total == 8


def held(needles: Sequence[str | bytes | None]) -> list[Any]:
    """Strings and bytes objects in memory that contain one of the needles, except the needles themselves."""
    gc.collect()
    found: dict[int, Any] = {}
    own = {id(needle) for needle in needles}
    for each in gc.get_objects():
        inside = each.items() if type(each) is dict else each if type(each) in (list, tuple, set, frozenset) else ()
        for value in (part for entry in list(inside) for part in (entry if type(entry) is tuple else (entry,))):
            if type(value) not in (str, bytes) or id(value) in own:
                continue
            if any(type(needle) is type(value) and needle in value for needle in needles):
                found[id(value)] = value
    return list(found.values())


def arrays_with(vector: np.ndarray) -> list[np.ndarray]:
    """Arrays in this process that contain `vector` as a row, including rows beyond those in use."""
    gc.collect()
    found = {id(part): part for each in gc.get_objects() for part in gc.get_referents(each) if type(part) is np.ndarray}
    matrices = [each for each in found.values() if each.dtype == np.float32 and each.ndim == 2 and each.shape[1] == len(vector)]
    return [each for each in matrices if (each == vector).all(axis=1).any()]


def test_memory_of_the_service_has_nothing_of_erased_images_after_a_request(tmp_path: Path) -> None:
    """Checked are caches of blurred pictures, lists of shown images, columns, metadata and vectors.

    The erased picture is used by this test only: galleries of other tests in this process contain the pictures that all of them
    index.
    """
    gallery = make_gallery(tmp_path, range(8))
    who, secret = f"okapi {'person'}", f"secret of {'okapi'}"  # built here, so that no constant of this code is found in memory
    (photo,) = write_pictures(tmp_path / "alone", 1, seed=6_021_023)
    vector = ColourEncoder().encode_images([open_image(photo)])[0]
    told = {"camera": "lobby", "identity": who, "note": secret}
    Gallery.open(gallery, ColourEncoder()).add([photo], [told])
    del told
    (erased,) = ids_of(gallery, who)
    scoped = bearer(gallery, "viewer", ("lobby",))
    everything = bearer(gallery, "administrator")
    with serving(gallery, blur_faces=True) as client:
        client.headers.update(everything)
        service = service_of(client)
        assert service.ready.wait(300)
        for headers in (scoped, everything):
            answer = client.post("/v1/search", json={**EVERYTHING, "where": f"note = '{secret}'"}, headers=headers)
            assert [hit["id"] for hit in answer.json()["hits"]] == [erased]
            assert client.get(f"/v1/images/{erased}", headers=headers).status_code == 200
        assert client.post("/v1/search", json={**EVERYTHING, "group": "identity"}).status_code == 200
        assert client.get("/v1/gallery").status_code == 200
        jpeg = service.gallery.image(erased).thumbnail
        assert service.blur is not None
        blurred = service.blur(jpeg)
        del answer
        needles = (who, secret, jpeg, blurred)
        assert held(needles) and arrays_with(vector) and service.shown.holds(caller_of(service, scoped), erased)
        forget_elsewhere(gallery, who=who)
        assert client.get("/v1/gallery").json()["images"] == 8
        assert held(needles) == [] and arrays_with(vector) == []
        assert not service.shown.holds(caller_of(service, scoped), erased)


def caller_of(service: Any, headers: dict[str, str]) -> Any:
    return caller_with(service.keys.find(headers["Authorization"].removeprefix("Bearer ")))
