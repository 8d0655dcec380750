"""Calibration: the probability that a hit is right, from its standardised score.

    z = (s - m.q) / sqrt(q' S q)        s the cosine, m and S mean and covariance of the gallery's embeddings, q the query

is the score in standard deviations from its mean over the gallery, and so comparable between queries. On a labelled split, isotonic
regression estimates p(z), the share of right pairs among pairs with that z (see `evaluation.calibration`). The prior odds depend on
the size of the gallery, while the likelihood ratio given z does not. With r right images expected among N:

    odds  =  p / (1 - p)  *  r / (N - r)  /  (r' / (N' - r'))        r', N' of the split, and r = r'

The estimate assumes that the gallery holds as many images of the person as the split does on average. It does not consider that the
person may be missing from the gallery.

MODEL/calibration.json stores it; without that file no estimate is made.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from pydantic import model_validator

from tbps.config import Settings
from tbps.errors import ModelError, SettingsError
from tbps.gallery.encoder import Encoder
from tbps.storage import write_text

CALIBRATION_FILE = "calibration.json"


class Calibration(Settings):
    """The calibration curve p(z) of one model, as knots to interpolate between.

    z: ascending knots; share: share of right pairs at each knot, not decreasing; right: mean number of right images per query.
    model: fingerprint of the model; source: the labelled split; queries, images: their numbers on the split.
    """

    format: Literal["tbps-calibration"] = "tbps-calibration"
    version: Literal[1] = 1
    model: str
    source: str
    queries: int
    images: int
    right: float
    z: tuple[float, ...]
    share: tuple[float, ...]

    @model_validator(mode="after")
    def _is_a_curve(self) -> "Calibration":
        if not self.z or len(self.z) != len(self.share) or not 0 < self.right < self.images:
            raise ValueError("z and share must have as many knots each, and right lie between 0 and images")
        if (np.diff(self.z) < 0).any() or (np.diff(self.share) < 0).any() or not 0 <= self.share[0] <= self.share[-1] <= 1:
            raise ValueError("z and share must rise, and share lie between 0 and 1")
        return self

    def chances(self, z: Float[np.ndarray, " N"], images: int) -> Float64[np.ndarray, " N"]:
        """The probability that each hit is right in a gallery of that many images; see the docstring of this module."""
        share = np.interp(z, self.z, self.share)
        here = min(self.right / images, 0.5)
        there = self.right / self.images
        right, wrong = share * here / there, (1 - share) * (1 - here) / (1 - there)
        chances: np.ndarray = right / (right + wrong)
        return chances

    def save(self, model: Path) -> Path:
        """Writes the calibration to a model's folder; returns the file."""
        write_text(model / CALIBRATION_FILE, self.model_dump_json(indent=1) + "\n")
        return model / CALIBRATION_FILE


def calibration_of(model: Encoder) -> Calibration | None:
    """The calibration in a model's folder; None if the folder has none, or the model was not opened from a folder.

    Raises ModelError when it cannot be read, is damaged or belongs to another model.
    """
    if model.folder is None:
        return None
    file = model.folder / CALIBRATION_FILE
    try:
        found = Calibration.parse(json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}); look at its permissions") from error
    except (ValueError, SettingsError) as error:
        raise ModelError(f"{file} is damaged ({error}); write it again with `tbps calibrate`, or remove it") from error
    if found.model != model.fingerprint:
        raise ModelError(
            f"{file} belongs to another model ({found.model}, not {model.fingerprint}); "
            "write it again with `tbps calibrate`, or remove it"
        )
    return found


def cutoff_at(chances: Float[np.ndarray, " N"], share: float) -> tuple[int, float]:
    """Finds the largest n such that the expected share of right ones among the first n hits is at least `share`.

    chances: probability of each hit, best hit first. Returns n and the expected share; (0, chance of the first hit) if even the
    first hit is less likely than `share`.
    """
    expected = np.cumsum(chances) / np.arange(1, len(chances) + 1)
    enough = np.flatnonzero(expected >= share)
    if not len(enough):
        return 0, float(chances[0]) if len(chances) else 0.0
    return int(enough[-1]) + 1, float(expected[enough[-1]])
