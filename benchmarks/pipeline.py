"""Cost of each pipeline step with the bundled model: `python benchmarks/pipeline.py [--toy]`.

The steps: writing mannequins as a data set (drawing, JPEG, captions, annotation file; one process), decoding and resizing (two
threads), embedding, and exact search among random unit embeddings. Wall-clock time on the cores that this process may use.
"""

import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import torch
from measuring import Measurement, rates, seconds
from results import Benchmark, run_alone

import tbps
from tbps.data import SplitSize, decoded, read_dataset, write_mannequins
from tbps.gallery import ExactIndex
from tbps.seeding import generator

MODEL = Path(__file__).parents[1] / "models" / "mannequin-tiny"
DIMENSIONS, K, QUERIES = 512, 10, 20


def searching(rows: int, runs: int) -> Measurement:
    """Measures the latency of sequential queries without embedding them."""
    rng = generator(0, "benchmark", "search")
    embeddings = rng.standard_normal((rows, DIMENSIONS), dtype=np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    index = ExactIndex(np.array([f"{row:08d}".encode() for row in range(rows)]), embeddings)
    queries = rng.standard_normal((QUERIES, DIMENSIONS))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    spent = seconds(lambda: [index.top(query, K) for query in queries], runs)
    return Measurement(
        f"exact search, best {K} of {rows:,} x {DIMENSIONS}", "ms a query", tuple(1000 * each / QUERIES for each in spent)
    )


def measure(toy: bool, runs: int) -> Benchmark:
    people, rows = (4, 1000) if toy else (200, 100_000)
    model, numbers = tbps.load(MODEL), count()
    images = 4 * people
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def write() -> None:
            write_mannequins(folder / str(next(numbers)), {"test": SplitSize(people, 4)}, seed=3, workers=1)

        written = seconds(write, runs)
        split = read_dataset("folder", folder / "0")
        resizing = seconds(lambda: list(decoded(split.images, model.spec)), runs)
        arrays = list(decoded(split.images, model.spec))
    captions = [caption for image in split.images for caption in image.captions]
    found = [
        rates("mannequins written, one process", "images a second", images, written),
        rates("decoded and resized", "images a second", images, resizing),
        rates("images embedded", "images a second", images, seconds(lambda: [model.encode_arrays(a) for a in arrays], runs)),
        rates("captions embedded", "captions a second", len(captions), seconds(lambda: model.encode_texts(captions), runs)),
        searching(rows, runs),
    ]
    return Benchmark("pipeline", found, {"model": MODEL.name, "images": images, "rows": rows, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    run_alone(measure, __doc__)
