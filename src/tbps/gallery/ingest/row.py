"""Rows to be stored in the gallery's table."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tbps.gallery.ingest.sources.candidates import Candidate
from tbps.gallery.store.columns import RowMetadata
from tbps.gallery.store.table import KnownRow


@dataclass(frozen=True, slots=True)
class Row:
    """One image with all of its stored data except the embedding.

    candidate: the file that the image was read from; metadata: the image's own, parsed once; pixels: the encoder's input, (height,
    width, 3) uint8, None when the gallery holds the content already; is_crop: whether it is a person's crop; key: that of the
    scene or video, "" to add the row even if its scene or video is finished.
    """

    candidate: Candidate
    metadata: RowMetadata
    content_hash: str
    pixels: np.ndarray | None
    thumbnail: bytes
    is_crop: bool = False
    key: str = ""

    def columns(self, model: str) -> dict[str, Any]:
        """The values of the table's columns; model: fingerprint of the encoder."""
        return {
            "id": id_of(self.content_hash),
            "thumbnail": self.thumbnail,
            "source": self.candidate.name,
            "root": self.candidate.root,
            "identity": self.metadata.identity,
            "camera": self.metadata.camera,
            "captured_at": self.metadata.captured_at,
            "attributes": self.metadata.attributes,
            "content_hash": self.content_hash,
            "model": model,
            **self.metadata.extras,
        }

    def known(self) -> KnownRow:
        """The columns that are kept in memory for later comparison with the file."""
        own = self.metadata
        return KnownRow(self.candidate.root, self.candidate.name, own.identity, own.camera, own.captured_at, own.attributes)


def id_of(content_hash: str) -> str:
    """The id of the image with a content hash."""
    return content_hash[:24]
