"""The mannequins of a data set as another camera films them and another annotator describes them.

    python examples/another_domain.py people evening

The pictures are blurred, dark and tinted; some forty words become others that mean the same. Who is who, the splits, the cameras
and the attributes stay. A model that was trained on mannequins knows little of these, as CLIP does of pedestrians, so that there is
something to learn: docs/study starts from such a gap.
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
_DUSK = (0.40, 0.10, 0.00, 0, 0.05, 0.50, 0.05, 0, 0.05, 0.15, 0.65, 12)  # red, green, blue of red, green, blue and one


def reworded(caption: str) -> str:
    """The caption in the other annotator's words."""
    return _WORD.sub(lambda found: OTHER_WORDS[found[0].lower()], caption)


def filmed(image: Image.Image) -> Image.Image:
    """The picture as the other camera takes it, as large as before."""
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
