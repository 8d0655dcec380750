"""Reads photographs of whole scenes: each person in one becomes a row."""

from dataclasses import replace

from PIL import Image

from tbps.gallery.ingest.context import Context
from tbps.gallery.ingest.hashes import content_hash, crop_hash
from tbps.gallery.ingest.reading import ReadPicture, dated, dated_undecoded, decode, pixels_and_thumbnail, remarks_on
from tbps.gallery.ingest.row import Row
from tbps.gallery.ingest.sources.candidates import Candidate
from tbps.gallery.store.columns import RowMetadata
from tbps.video import Crop


def read_scene(candidate: Candidate, metadata: RowMetadata, source: bytes | Image.Image, context: Context) -> ReadPicture:
    """Detects the people in a photograph. Raises DataError when it cannot be read. Called by reader threads."""
    file_hash = content_hash(source)
    stored_as = context.row_hash(file_hash, metadata.camera)
    at_path = context.known.at_path(candidate, file_hash)
    before = context.finished(file_hash, candidate.columns, metadata.camera, context.people)
    if before is not None and not context.searches_again(at_path):
        metadata = dated_undecoded(metadata, candidate, source)
        return ReadPicture(candidate, metadata, (), file_hash, at_path, before, was_finished=True)
    if context.leaves_as_is(at_path):
        return ReadPicture(candidate, metadata, (), file_hash, at_path)
    photograph = decode(source)
    metadata = dated(metadata, candidate, photograph.taken)
    scene = context.scene(stored_as, candidate.columns, context.people)
    key = scene.key if before is None else ""
    rows = []
    for crop in context.people.in_photograph(candidate.name, photograph.image):
        own = replace(context.parse({**candidate.columns, **crop.columns()}), captured_at=metadata.captured_at)
        rows.append(crop_row(crop, candidate, own, stored_as, key, context))
    return ReadPicture(candidate, metadata, tuple(rows), file_hash, at_path, scene, remarks=remarks_on(candidate, photograph))


def crop_row(crop: Crop, candidate: Candidate, metadata: RowMetadata, stored_as: str, key: str, context: Context) -> Row:
    """The row of a person in the scene or video `candidate`. stored_as: the hash of its file (see `Context.row_hash`)."""
    pixels, thumbnail = pixels_and_thumbnail(crop.image, context.spec)
    return Row(candidate, metadata, crop_hash(stored_as, crop.frame, crop.box), pixels, thumbnail, is_crop=True, key=key)
