"""Search against FAISS flat on the same vectors: `python benchmarks/search.py [--toy]`.

First, exact search over 200,000 x 512. Then a gallery of a million rows, where search is approximate (above 200,000 rows): latency,
recall@10 against FAISS flat with and without a camera filter (one of ten cameras), and the time until a search finds 1,000 added
rows. `tbps` and FAISS alternate query by query, so that ratios stay valid when the speed of the machine drifts.

Clustered vectors are distributed like image embeddings of a model: a common mean, clusters of ten images per person, an offset per
camera, and a spectrum that falls as 1 / n. Queries are distributed like text embeddings: a person's direction with noise, partly
along other directions, around another mean. Random vectors are isotropic, so that cells do not help; the gallery must detect this
and search exactly.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import faiss
import numpy as np
from measuring import Measurement, ratios
from results import Benchmark, run_alone

from tbps.gallery import Encoder, ExactIndex, Hit, Query, Rows, Table, Versions, compose, find, written
from tbps.seeding import generator

DIMENSIONS, K, CAMERAS, BLOCK = 512, 10, 10, 50_000
CAMERA = 3
WHERE = f"camera = 'camera-{CAMERA:02d}'"


@dataclass(frozen=True)
class Vectors:
    """Blocks of (embeddings, camera numbers), and queries; unit rows, float32."""

    blocks: Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]]
    queries: np.ndarray


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_vectors(queries: int) -> Vectors:
    rng = generator(0, "benchmark", "random")

    def blocks(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, count, BLOCK):
            size = min(BLOCK, count - start)
            yield unit(rng.standard_normal((size, DIMENSIONS), dtype=np.float32)), rng.integers(CAMERAS, size=size)

    return Vectors(blocks, unit(generator(0, "benchmark", "queries").standard_normal((queries, DIMENSIONS))))


def clustered_vectors(people: int, queries: int) -> Vectors:
    rng = generator(0, "benchmark", "clustered")
    fall = ((1 + np.arange(DIMENSIONS)) ** -0.5).astype(np.float32)
    turn, own_turn = (np.linalg.qr(rng.standard_normal((DIMENSIONS, DIMENSIONS)))[0].astype(np.float32) for _ in range(2))

    def draw(count: int) -> np.ndarray:
        return rng.standard_normal((count, DIMENSIONS), dtype=np.float32) * fall

    person = 0.8 * draw(people) + draw(200)[rng.integers(200, size=people)]  # two hundred styles of clothing
    camera, mean = 0.7 * draw(CAMERAS), 2.5 * draw(1)
    sought = person[rng.integers(people, size=queries)]
    texts = (0.8 * sought + 0.9 * draw(queries)) @ turn + (3 * draw(1) + 0.8 * draw(queries)) @ own_turn

    def blocks(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, count, BLOCK):
            size = min(BLOCK, count - start)
            cameras = rng.integers(CAMERAS, size=size)
            crops = mean + person[rng.integers(people, size=size)] + camera[cameras] + 0.8 * draw(size)
            yield unit(crops @ turn), cameras

    return Vectors(blocks, unit(texts))


def filled(folder: Path, vectors: Vectors, count: int) -> tuple[Table, "faiss.IndexFlatIP", np.ndarray]:
    """Builds a table, FAISS flat with the same rows in the same order, and every row's camera."""
    table, flat, cameras, start = Table.create(folder, DIMENSIONS), faiss.IndexFlatIP(DIMENSIONS), [], 0
    for embeddings, seen in vectors.blocks(count):
        append(table, embeddings, seen, start)
        flat.add(embeddings)
        cameras.append(seen)
        start += len(embeddings)
    table.tidy()  # as `Gallery.add` does at its end
    return table, flat, np.concatenate(cameras)


def append(table: Table, embeddings: np.ndarray, cameras: np.ndarray, start: int) -> None:
    fixed = {"thumbnail": bytes(200), "root": "", "attributes": "{}", "model": "benchmark"}
    names = [f"{row:024x}" for row in range(start, start + len(embeddings))]
    rows = [
        {"id": name, "source": name, "content_hash": name, "camera": f"camera-{camera:02d}", **fixed}
        for name, camera in zip(names, cameras.tolist(), strict=True)
    ]
    table.append(rows, embeddings)


def milliseconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - began)


def exact(rows: int, queries: int) -> list[Measurement]:
    """Measures exact search and FAISS flat, alternating."""
    vectors = clustered_vectors(rows // 10, queries)
    embeddings = np.concatenate([block for block, _ in vectors.blocks(rows)])
    ids = np.array([f"{row:024x}" for row in range(rows)], "S24")
    held = Rows.room_for(rows, DIMENSIONS).extended(np.arange(rows, dtype=np.uint64), ids, embeddings)
    index = ExactIndex(held.ids, held.embeddings)
    flat = faiss.IndexFlatIP(DIMENSIONS)
    flat.add(embeddings)
    ours, theirs = [], []
    for query in np.concatenate([vectors.queries[:3], vectors.queries]):  # the first three are warm-up
        theirs.append(milliseconds(lambda query=query: flat.search(query[None], K)))
        ours.append(milliseconds(lambda query=query: index.top(query.astype(np.float64), K)))
        assert set(flat.search(query[None], K)[1][0].tolist()) == set(index.top(query.astype(np.float64), K)[0].tolist())
    size = f"best {K} of {rows:,} x {DIMENSIONS}"
    return [
        Measurement(f"FAISS flat, {size}", "ms", tuple(theirs[3:])),
        Measurement(f"exact search, {size}", "ms", tuple(ours[3:])),
        ratios("exact search / FAISS flat", ours[3:], theirs[3:]),
    ]


def large(kind: str, vectors: Vectors, rows: int) -> list[Measurement]:
    """Measures a gallery with more rows than the limit of exact search."""
    with tempfile.TemporaryDirectory() as temporary:
        table, flat, cameras = filled(Path(temporary), vectors, rows)
        versions = Versions(table)
        opening = milliseconds(versions.newest)
        building = milliseconds(versions.prepare)
        name = f"{rows:,} x {DIMENSIONS}, {kind}"
        found = [
            Measurement(f"read into memory, {name}", "s", (opening / 1000,)),
            Measurement(f"cells built, {name}", "s", (building / 1000,)),
        ]
        for where in (None, WHERE):
            found += compared(versions, flat, vectors.queries, where, cameras == CAMERA, name)
        del flat
        fresh = vectors.queries[:1].repeat(1000, axis=0)
        append(table, fresh, np.full(1000, CAMERA), rows)
        visible = milliseconds(lambda: searched(versions, vectors.queries[0], None))
        assert int(searched(versions, vectors.queries[0], None)[0].id, 16) >= rows
        return [*found, Measurement(f"1,000 rows added, until found by a search, {name}", "ms", (visible,))]


def searched(versions: Versions, query: np.ndarray, where: str | None, thumbnails: bool = True) -> tuple[Hit, ...]:
    """Returns the hits of an embedding. The encoder is a stub: composing a query from an embedding uses its dimension only."""
    asked = Query(k=K, where=where)
    composed = compose(asked, [query], cast(Encoder, SimpleNamespace(dim=DIMENSIONS)), {})
    return find(versions.newest(), None, asked, composed, thumbnails=thumbnails).hits


def compared(
    versions: Versions, flat: "faiss.IndexFlatIP", queries: np.ndarray, where: str | None, passing: np.ndarray, name: str
) -> list[Measurement]:
    """Measures nearest rows alone, whole searches without and with thumbnails, and FAISS flat, alternating; and the recall."""
    version = versions.newest()
    rows = None if where is None else version.passing(written(where))
    only = None if where is None else faiss.SearchParameters(sel=faiss.IDSelectorBatch(np.flatnonzero(passing)))
    shares, nearest, whole, shown, theirs, approximate = [], [], [], [], [], False
    for query in queries:
        began = time.perf_counter()
        found = version.top(query.astype(np.float64), K, rows)
        nearest.append(1000 * (time.perf_counter() - began))
        whole.append(milliseconds(lambda query=query: searched(versions, query, where, thumbnails=False)))
        shown.append(milliseconds(lambda query=query: searched(versions, query, where)))
        began = time.perf_counter()
        _, truth = flat.search(query[None], K, params=only)
        theirs.append(1000 * (time.perf_counter() - began))
        shares.append(len(np.intersect1d(truth[0], [int(name, 16) for name in version.rows.ids[found.positions]])) / K)
        approximate = found.approximate
    way = "approximate" if approximate else "exact"
    name += "" if where is None else ", one camera"
    return [
        Measurement(f"FAISS flat, {name}", "ms", tuple(theirs)),
        Measurement(f"nearest rows, {way}, {name}", "ms", tuple(nearest)),
        ratios(f"FAISS flat / nearest rows, {name}", theirs, nearest),
        Measurement(f"whole search, {way}, {name}", "ms", tuple(whole)),
        Measurement(f"whole search with thumbnails, {way}, {name}", "ms", tuple(shown)),
        Measurement(f"recall@{K}, {name}", "of 1", (statistics.fmean(shares),)),
    ]


def measure(toy: bool, runs: int) -> Benchmark:
    """Runs all measurements; `runs` is ignored, because every query is one run."""
    queries = 4 if toy else 40
    rows, large_rows, random_rows = (2_000, 3_000, 0) if toy else (200_000, 1_000_000, 250_000)
    found = exact(rows, queries) + large("clustered", clustered_vectors(large_rows // 10, queries), large_rows)
    if random_rows:
        found += large("random", random_vectors(queries), random_rows)
    return Benchmark("search", found, {"queries": queries, "faiss": faiss.__version__, "threads": faiss.omp_get_max_threads()})


if __name__ == "__main__":
    run_alone(measure, __doc__)
