"""State that the threads of one indexing run share: immutable settings, and the lock-protected `Known`."""

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
    """Options of indexing. batch_size: pictures per encoder batch; refresh: apply the differences found (see `changes`)."""

    batch_size: int = 64
    refresh: bool = False
    footage: Footage = field(default_factory=Footage)


@final
@dataclass(frozen=True, slots=True)
class Context:
    """Shared state of one indexing run. kinds: those of the metadata columns; spec, fingerprint: those of the encoder."""

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
        """Start time of a video whose metadata have none."""
        return self.options.footage.start

    def parse(self, columns: Mapping[str, Any]) -> RowMetadata:
        """Parses the metadata of one row. Raises DataError when the caller may not add to its camera."""
        metadata, within = row_metadata(columns, self.kinds), self.options.footage.within
        if within is not None and metadata.camera not in {canonical_name(name) for name in within}:
            named = "it names no camera" if metadata.camera is None else f"camera {metadata.camera!r}"
            raise DataError(f"{named}: only pictures of these cameras may be added here: {', '.join(within)}")
        return metadata

    def row_hash(self, content: str, camera: str | None) -> str:
        """The hash under which new content is stored; `camera_hash` if the caller is restricted to some cameras."""
        return content if self.options.footage.within is None else camera_hash(content, camera)

    def held_as(self, content: str, camera: str | None) -> str | None:
        """The hash under which the gallery holds this content; None when it does not, or when the caller may not know."""
        return self.known.held_as(content, camera, self.options.footage.within)

    def scene(self, content: str, columns: Mapping[str, Any], people: PeopleFinder) -> Finished:
        """The key of a scene or video, and the metadata that are recorded with it.

        The metadata include the file's hash, which the record does not contain: otherwise a camera's name could be guessed from
        the digest of the metadata.
        """
        return Finished(people.key(content, self.fingerprint), {**columns, "start": self.start, "content_hash": content})

    def finished(self, content: str, columns: Mapping[str, Any], camera: str | None, people: PeopleFinder) -> Finished | None:
        """The record of a completely searched scene or video; None when there is none, or when the caller may not know."""
        at_camera = camera_hash(content, camera)
        for each in (at_camera, content):
            scene = self.scene(each, columns, people)
            hidden = each != at_camera and self.options.footage.within is not None
            if self.known.is_finished(scene, same_metadata=hidden):  # equal metadata imply the same camera
                return scene
        return None

    def searches_again(self, at_path: AtPath) -> bool:
        """Whether a finished scene or video is searched again: with `refresh`, when it replaces other content at its path."""
        return bool(at_path.former and not at_path.current and self.refresh)

    def leaves_as_is(self, at_path: AtPath) -> bool:
        """Whether new content at a known path is only reported, not added, since `refresh` is off."""
        return bool(at_path.former and not self.refresh)
