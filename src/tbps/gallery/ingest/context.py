"""What the threads of one run of indexing share: settings that do not change, and the locked `Known`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, final

from tbps.errors import DataError
from tbps.gallery.ingest.footage import Footage
from tbps.gallery.ingest.hashes import camera_hash
from tbps.gallery.ingest.known import AtPath, Known
from tbps.gallery.ingest.people import PeopleFinder
from tbps.gallery.ingest.record import Finished
from tbps.gallery.store.columns import RowMetadata, row_metadata
from tbps.gallery.store.numbers import canonical_name
from tbps.gallery.store.schema import Kind
from tbps.preprocess.image import ImageSpec


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to index. batch_size: pictures per run of the encoder; refresh: apply the differences that are found (see `changes`)."""

    batch_size: int = 64
    refresh: bool = False
    footage: Footage = field(default_factory=Footage)


@final
@dataclass(frozen=True, slots=True)
class Context:
    """What every thread of a run may use. kinds: of the metadata columns; spec, fingerprint: of the encoder."""

    options: IngestOptions
    people: PeopleFinder
    known: Known
    kinds: Mapping[str, Kind]
    spec: ImageSpec
    fingerprint: str

    @property
    def refresh(self) -> bool:
        return self.options.refresh

    @property
    def start(self) -> datetime | None:
        """When a video begins whose metadata do not say it."""
        return self.options.footage.start

    def parse(self, columns: Mapping[str, Any]) -> RowMetadata:
        """Parses the metadata of one row. Raises DataError when the caller may not add to its camera."""
        metadata, within = row_metadata(columns, self.kinds), self.options.footage.within
        if within is not None and metadata.camera not in {canonical_name(name) for name in within}:
            named = "it names no camera" if metadata.camera is None else f"camera {metadata.camera!r}"
            raise DataError(f"{named}: only pictures of these cameras may be added here: {', '.join(within)}")
        return metadata

    def row_hash(self, content: str, camera: str | None) -> str:
        """The hash under which a new content is stored: its own, or that of `camera_hash` for a caller of some cameras only."""
        return content if self.options.footage.within is None else camera_hash(content, camera)

    def held_as(self, content: str, camera: str | None) -> str | None:
        """The hash under which the gallery holds a content, None when it does not, as far as the caller may know."""
        return self.known.held_as(content, camera, self.options.footage.within)

    def scene(self, content: str, columns: Mapping[str, Any], people: PeopleFinder) -> Finished:
        """The key of a scene or video, and the metadata that are recorded with it.

        They hold the file's hash, which the record does not: without it a camera's name could be guessed from the digest.
        """
        return Finished(people.key(content, self.fingerprint), {**columns, "start": self.start, "content_hash": content})

    def finished(self, content: str, columns: Mapping[str, Any], camera: str | None, people: PeopleFinder) -> Finished | None:
        """The record of a scene or video that was searched to its end, None when it was not, as far as the caller may know."""
        at_camera = camera_hash(content, camera)
        for each in (at_camera, content):
            scene = self.scene(each, columns, people)
            hidden = each != at_camera and self.options.footage.within is not None
            if self.known.is_finished(scene, same_metadata=hidden):  # same metadata: the same camera
                return scene
        return None

    def searches_again(self, at_path: AtPath) -> bool:
        """Whether a finished scene or video is searched again: when it replaces other content at its path."""
        return bool(at_path.former and not at_path.current and self.refresh)

    def leaves_as_is(self, at_path: AtPath) -> bool:
        """Whether new content at a known path is reported only, because differences are not to be applied."""
        return bool(at_path.former and not self.refresh)
