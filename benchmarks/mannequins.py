"""How fast mannequins are drawn: `python benchmarks/mannequins.py [--crops 400] [--runs 5]`.

CPU time on one core of sampling the scene, drawing at twice the size, reducing, the camera, JPEG.
"""

import argparse
import time

from measuring import RUNS, Row, publish, rates, seconds

from tbps.data.mannequins.drawing import draw, encode
from tbps.data.mannequins.people import population, sample_view
from tbps.seeding import generator


def main(crops: int, runs: int) -> None:
    people = population(5, "train", 200)
    rng = generator(5, "benchmark")
    views = [sample_view(rng) for _ in range(crops)]

    def draw_all() -> int:
        return sum(len(encode(draw(people[index % len(people)], view))) for index, view in enumerate(views))

    start = time.process_time()
    size = draw_all()  # fills the caches of places, passers-by and textures
    first = time.process_time() - start
    spent = seconds(draw_all, runs, time.process_time)
    rows = [
        rates("crops drawn and encoded", "a second and core", crops, spent),
        Row("first of these runs, with an empty cache of places", "s", (first,)),
        Row("size of a crop", "kB", (size / crops / 1000,)),
    ]
    publish("mannequins", rows, {"crops": crops})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=400)
    parser.add_argument("--runs", type=int, default=RUNS)
    main(**vars(parser.parse_args()))
