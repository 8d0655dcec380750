"""Speed of drawing mannequins: `python benchmarks/mannequins.py [--toy]`.

CPU time on one core for sampling the scene, drawing at twice the size, downscaling, camera effects and JPEG encoding.
"""

import time

from measuring import Measurement, rates, seconds, timed
from results import Benchmark, run_alone

from tbps.data import draw_person, encode_picture, population, sample_view
from tbps.seeding import generator


def measure(toy: bool, runs: int) -> Benchmark:
    crops = 8 if toy else 400
    people = population(5, "train", crops // 2)
    rng = generator(5, "benchmark")
    views = [sample_view(rng) for _ in range(crops)]

    def draw_all() -> int:
        return sum(len(encode_picture(draw_person(people[index % len(people)], view))) for index, view in enumerate(views))

    first = timed(draw_all, time.process_time)  # fills the caches of places, passers-by and textures
    rows = [
        rates("crops drawn and encoded", "a second and core", crops, seconds(draw_all, runs, time.process_time)),
        Measurement("first of these runs, with an empty cache of places", "s", (first,)),
        Measurement("size of a crop", "kB", (draw_all() / crops / 1000,)),
    ]
    return Benchmark("mannequins", rows, {"crops": crops})


if __name__ == "__main__":
    run_alone(measure, __doc__)
