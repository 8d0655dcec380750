"""Latency of the service under load: `python benchmarks/serving.py [--toy]`.

A gallery of mannequins and the bundled model behind a uvicorn process; 1, 16 and 64 clients, each with its own connection, send one
search after another. Two services are measured in turn: one encodes waiting texts in a batch, the other encodes each text
separately. A row is the median of the percentile over all rounds; "answered" is the share of responses with status 200. Service and
clients share the machine's cores; every response is in the audit log before it is sent.
"""

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from measuring import Measurement, say
from results import Benchmark, run_alone

import tbps
from tbps.data import SplitSize, read_dataset, write_mannequins

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "mannequin-tiny"
CLIENTS = (1, 16, 64)
PERCENTILES = (50, 95, 99)
WAYS = {"texts together": {}, "each text by itself": {"batch_texts": 1, "batch_window": 0}}
K = 10
SERVE = """
import json, sys
from pathlib import Path
import tbps
from tbps.server import Service, ServiceSettings, run

gallery, model, state, settings = sys.argv[1:]
service = Service(Path(gallery), tbps.load(model), ServiceSettings.parse(json.loads(settings)), Path(state))
run(service, lambda address: print(address, flush=True))
"""


@contextmanager
def serving(gallery: Path, state: Path, settings: dict[str, object]) -> Iterator[subprocess.Popen[str]]:
    """Starts a service, which prints its address."""
    given = json.dumps({"port": 0, "searches_per_minute": 0, **settings})
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", SERVE, str(gallery), str(MODEL), str(state), given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


def copied(gallery: Path, number: int) -> Path:
    """Copies the gallery for one service: only one can serve a gallery at a time."""
    return Path(shutil.copytree(gallery, gallery.with_name(f"gallery {number}")))


def ready(process: subprocess.Popen[str]) -> str:
    """Waits until a service is ready and returns its host and port."""
    assert process.stdout is not None
    place = urlsplit(process.stdout.readline().strip()).netloc
    while True:
        connection = http.client.HTTPConnection(place)
        connection.request("GET", "/healthz")
        status = json.loads(connection.getresponse().read())["status"]
        connection.close()
        if status == "ready":
            return place
        time.sleep(0.05)


def client(place: str, texts: Sequence[str]) -> list[tuple[int, float]]:
    """Sends searches one after another; returns status and milliseconds of each."""
    connection = http.client.HTTPConnection(place, timeout=60)
    found = []
    for text in texts:
        body = json.dumps({"texts": [{"text": text}], "k": K})
        began = time.perf_counter()
        connection.request("POST", "/v1/search", body, {"Content-Type": "application/json", "X-Tbps": "1"})
        answer = connection.getresponse()
        answer.read()
        found.append((answer.status, 1000 * (time.perf_counter() - began)))
    connection.close()
    return found


def load(place: str, texts: Sequence[str], clients: int) -> tuple[list[tuple[int, float]], float]:
    """Runs clients in parallel; returns their results and the total seconds."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(lambda number: client(place, texts[number::clients]), range(clients)))
    return [each for part in found for each in part], time.perf_counter() - began


def measure(toy: bool, runs: int) -> Benchmark:
    people = 4 if toy else 500
    searches = dict(zip(CLIENTS, (2, 16, 64) if toy else (50, 192, 384), strict=True))
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as open_services:
        folder = Path(temporary)
        write_mannequins(folder / "people", {"test": SplitSize(people, 4)}, seed=3, workers=1)
        gallery = tbps.Gallery.open(folder / "gallery", tbps.load(MODEL))
        gallery.add(folder / "people")
        captions = [text for image in read_dataset("folder", folder / "people").split("test").images for text in image.captions]
        begun = {
            name: open_services.enter_context(serving(copied(folder / "gallery", number), folder / f"state {number}", settings))
            for number, (name, settings) in enumerate(WAYS.items())
        }
        places = {name: ready(process) for name, process in begun.items()}
        rows = [row for clients in CLIENTS for row in under(clients, places, (captions * 384)[: searches[clients]], runs)]
    conditions = {"model": MODEL.name, "images": 4 * people, "hits": K, "searches of a round": list(searches.values())}
    return Benchmark("serving", rows, conditions)


def under(clients: int, places: dict[str, str], texts: Sequence[str], runs: int) -> list[Measurement]:
    """Measures each service under `clients` clients; the first round of each is a warm-up."""
    spent: dict[str, list[np.ndarray]] = {name: [] for name in places}
    seconds: dict[str, list[float]] = {name: [] for name in places}
    well: dict[str, list[float]] = {name: [] for name in places}
    for run in range(1 + runs):
        for name, place in places.items():
            found, took = load(place, texts, clients)
            if run:
                spent[name].append(np.array([milliseconds for _, milliseconds in found]))
                seconds[name].append(took)
                well[name].append(100 * sum(status == 200 for status, _ in found) / len(found))
        say(f"{clients} clients, round {run} of {runs}")
    rows = []
    for name in places:
        for percentile in PERCENTILES:
            values = tuple(float(np.percentile(each, percentile)) for each in spent[name])
            rows.append(Measurement(f"{name}, p{percentile} of clients", "ms", values, clients))
        rows.append(
            Measurement(f"{name}, searches of clients", "a second", tuple(len(texts) / each for each in seconds[name]), clients)
        )
        rows.append(Measurement(f"{name}, answered, of clients", "%", tuple(well[name]), clients))
    return rows


if __name__ == "__main__":
    run_alone(measure, __doc__)
