"""How fast mannequins are drawn: `python benchmarks/mannequins.py [crops]`.

Prints crops a second on one core, in CPU time: sampling the scene, drawing at twice the size, reducing, the camera, JPEG.
"""

import sys
import time

from tbps.data.mannequins.drawing import draw, encode
from tbps.data.mannequins.people import population, sample_view
from tbps.seeding import generator


def main(count: int) -> None:
    people = population(5, "train", 200)
    rng = generator(5, "benchmark")
    views = [sample_view(rng) for _ in range(count)]
    start = time.process_time()
    for index in range(400):  # fills the caches of places, passers-by and textures
        draw(people[index % len(people)], sample_view(rng))
    warm = time.process_time() - start
    start = time.process_time()
    weight = sum(len(encode(draw(people[index % len(people)], view))) for index, view in enumerate(views))
    spent = time.process_time() - start
    each = f"{1000 * spent / count:.2f} ms and {weight / count / 1000:.1f} kB each"
    print(f"{count / spent:.0f} crops a second a core ({each}); warm-up {warm:.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
