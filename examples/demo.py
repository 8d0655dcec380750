"""Demonstration of the whole project on mannequins: draw, index, search, evaluate, train.

    make demo

Prints every command before running it. Cost: a few minutes on two cores. Result: the folder `demo` with a data set, a gallery, a
contact sheet `hits.png` of five searches and a training run.
"""

import io
import shlex
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

import tbps
from tbps.gallery import Hit
from tbps.sheet import SheetRow, Tile, contact_sheet

MODEL, HERE = "models/mannequin-tiny", Path("demo")
HITS = 8

# Each query with the attributes of a correct image: slot -> values.
QUERIES: dict[str, dict[str, set[str]]] = {
    "a woman in a red dress": {"gender": {"woman"}, "upper.kind": {"dress"}, "upper.colour": {"red", "maroon"}},
    "a man wearing a black t-shirt and jeans": {"gender": {"man"}, "upper.kind": {"t-shirt"}, "upper.colour": {"black"}, "lower.kind": {"jeans"}},  # noqa: E501
    "a man wearing a striped shirt and shorts": {"gender": {"man"}, "upper.pattern": {"striped"}, "lower.kind": {"shorts"}},
    "a person in a green top with a backpack": {"upper.colour": {"green", "olive", "mint", "teal"}, "bag.kind": {"backpack"}},
    "a man with a red backpack": {"gender": {"man"}, "bag.kind": {"backpack"}, "bag.colour": {"red"}},
}  # fmt: skip


def run(title: str, *command: str) -> None:
    """Prints and runs a `tbps` command."""
    print(f"\n== {title}\n$ tbps {shlex.join(command)}", flush=True)
    subprocess.run([str(Path(sys.executable).with_name("tbps")), *command], check=True)


def is_right(hit: Hit, wanted: dict[str, set[str]]) -> bool:
    """Returns whether the drawn attributes have the values that the query describes."""
    return all(hit.attributes.get(slot) in values for slot, values in wanted.items())


def search(gallery_folder: Path, picture: Path) -> None:
    """Searches with the five queries, prints the hits and draws them; correct ones have a frame."""
    gallery = tbps.Gallery.open(gallery_folder, tbps.load(MODEL))
    rows = []
    for query, wanted in QUERIES.items():
        hits = gallery.search(query, k=HITS)
        right = [is_right(hit, wanted) for hit in hits]
        everywhere = sum(is_right(hit, wanted) for hit in gallery.search(query, k=len(gallery)))
        print(f"\n{query}: {sum(right)} of {HITS} right ({everywhere} of {len(gallery):,} images are)")
        for hit, ok in zip(hits, right, strict=True):
            print(f"  {hit.rank}  {hit.score:.3f}  {hit.source}{'  right' if ok else ''}")
        tiles = [
            Tile(Image.open(io.BytesIO(h.thumbnail)), f"{h.rank}   {h.score:.3f}", ok) for h, ok in zip(hits, right, strict=True)
        ]
        rows.append(SheetRow(query, tuple(tiles)))
    contact_sheet(rows, title="Right ones (by the attributes drawn in the picture) are framed").save(picture)
    print(f"\ncontact sheet: {picture}")


def main() -> None:
    """Runs all steps and prints what to do next."""
    began = time.monotonic()
    people, gallery, lesson, trained = HERE / "people", HERE / "gallery", HERE / "lesson", HERE / f"run-{int(time.time())}"
    run("1. Open the bundled model", "doctor", "--model", MODEL)
    sizes = ("--train", "0", "--val", "0", "--test", "250", "--images", "4", "--seed", "7")
    run("2. Draw a gallery of 250 people whom the model has never seen", "data", "mannequins", str(people), *sizes)
    run("3. Index it", "index", str(people), "--gallery", str(gallery), "--model", MODEL)
    print("\n== and search it with five descriptions")
    search(gallery, HERE / "hits.png")
    run("4. Evaluate: every caption against every image", "evaluate", MODEL, "--data", "folder", "--root", str(people))
    sizes = ("--train", "1000", "--val", "50", "--test", "50", "--images", "4", "--seed", "8")
    run("5. Train from random weights, about a minute", "data", "mannequins", str(lesson), *sizes)
    where = ("--data", "folder", "--root", str(lesson), "--out", str(trained))
    run("and train: loss, learning rate, throughput and validation Rank-1", "train", "mannequin_minute", *where)
    print(
        f"\nDone in {time.monotonic() - began:.0f} s. Next:\n"
        "  your own photographs (crops of people), on a machine that reaches the model hub:\n"
        "    tbps index PHOTOS --gallery mine --model openai/clip-vit-base-patch16\n"
        '    tbps search mine "a woman in a red coat with a black backpack" --sheet hits.png\n'
        "  the paper's data set, to be requested from its authors:\n"
        "    tbps data check cuhk-pedes CUHK-PEDES\n"
        "    tbps train simplified_tbps_clip --data cuhk-pedes --root CUHK-PEDES --model openai/clip-vit-base-patch16 \\\n"
        "      --set text_augmentation.paraphrase_probability=0"
    )


if __name__ == "__main__":
    main()
