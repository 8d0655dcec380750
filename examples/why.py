"""Draws docs/images/why.png, the README's picture of an explained search result.

    python examples/why.py [TARGET]

Cost: seconds. Result: the best hit of one query among forty mannequins, with the patches that contributed to its similarity.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import tbps
from tbps.data import draw_person, population, sample_view
from tbps.gallery import Query, Text, draw_explanation
from tbps.seeding import generator

SEED, PEOPLE = 777, 40
ASKED = "a blonde woman in a red dress and red shoes"


def main(target: Path) -> None:
    """Indexes forty people and explains the best hit."""
    views = [replace(sample_view(generator(SEED, "why", number)), hidden="none") for number in range(PEOPLE)]
    pictures = [draw_person(person, view).image for person, view in zip(population(SEED, "val", PEOPLE), views, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        gallery = tbps.Gallery.open(folder, tbps.load("models/mannequin-tiny"))
        gallery.add(pictures)
        query = Query(texts=(Text(text=ASKED),))
        best = gallery.find(query).hits[0]
        draw_explanation(gallery.explain(query, best.id), best.thumbnail).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/why.png"))
