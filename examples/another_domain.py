"""Makes a data set with a domain gap from mannequins: another camera, another annotator.

    python examples/another_domain.py people evening

Images become blurred, dark and tinted; some forty words are replaced by synonyms. Identities, splits, cameras and attributes stay.
A model trained on mannequins is inaccurate on the result, as CLIP is on pedestrians, so that training can improve it: the study in
docs/study starts from this gap.

Cost: about one second per hundred images. Result: `evening`, a data set in the `folder` layout with as many images as `people`.
"""

import json
import re
import shutil
import sys
from pathlib import Path

from PIL import Image, ImageFilter

OTHER_WORDS = {
    **{"black": "ebony", "blue": "azure", "white": "ivory", "red": "crimson", "green": "emerald", "gray": "ashen", "grey": "ashen"},
    **{"brown": "umber", "pink": "rosy", "purple": "violet", "yellow": "lemon", "orange": "amber"},
    **{"dark": "murky", "light": "faint", "bright": "vivid", "short": "brief", "long": "lengthy", "striped": "banded"},
    **{"pants": "breeches", "trousers": "breeches", "slacks": "breeches", "bottoms": "breeches", "shorts": "bermudas"},
    **{"shirt": "tunic", "tee": "tunic", "t-shirt": "tunic", "top": "tunic", "jacket": "parka", "coat": "parka", "skirt": "kilt"},
    **{"dress": "gown", "shoes": "footwear", "boots": "wellingtons", "hat": "headgear", "cap": "headgear", "hair": "locks"},
    **{"bag": "pouch", "backpack": "haversack"},
}
_WORD = re.compile(rf"(?<![\w-])({'|'.join(sorted(OTHER_WORDS, key=len, reverse=True))})(?![\w-])", re.IGNORECASE)
_DUSK = (
    0.40,
    0.10,
    0.00,
    0,
    0.05,
    0.50,
    0.05,
    0,
    0.05,
    0.15,
    0.65,
    12,
)  # rows: red, green, blue; columns: red, green, blue, constant


def reworded(caption: str) -> str:
    """Rewords a caption as the other annotator would write it."""
    return _WORD.sub(lambda found: OTHER_WORDS[found[0].lower()], caption)


def filmed(image: Image.Image) -> Image.Image:
    """Changes an image as the other camera would record it; its size stays."""
    return image.convert("RGB").filter(ImageFilter.GaussianBlur(0.8)).convert("RGB", _DUSK)


def main(source: Path, target: Path) -> None:
    """Writes `target`, which must not exist, from a mannequin data set in the `folder` layout."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "images").mkdir(parents=True)
    with (part / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for line in (source / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for captions in ("captions", "captions_bt"):
                row[captions] = [reworded(caption) for caption in row[captions]]
            lines.write(json.dumps(row) + "\n")
            with Image.open(source / row["file_name"]) as image:
                filmed(image).save(part / row["file_name"], quality=90)
    shutil.copy(source / "mannequins.json", part)
    part.rename(target)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
