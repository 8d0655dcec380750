"""Bulk indexing: threads read pictures (bytes, hash, decoding, shrinking), a writer embeds and commits them.

Memory is bounded: the thread that decodes a picture shrinks it to the encoder's input and a thumbnail, and only a window of
pictures is read ahead. A row is acknowledged (in `on_progress` and the report) after its commit. Videos follow, one after another.
The gallery is locked during commits only. Threads share a frozen `Context`; its `Known` has a lock, and its detector may be called
from several threads.
"""

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tbps.errors import DataError
from tbps.gallery.encoder import Encoder
from tbps.gallery.ingest.commits import Writer, Writing
from tbps.gallery.ingest.context import Context, IngestOptions
from tbps.gallery.ingest.footage import CROP_COLUMNS
from tbps.gallery.ingest.hashes import content_hash
from tbps.gallery.ingest.known import Known
from tbps.gallery.ingest.outcome import IngestOutcome
from tbps.gallery.ingest.people import PeopleFinder
from tbps.gallery.ingest.reading import (
    Content,
    ReadPicture,
    contents_of,
    dated,
    dated_undecoded,
    decode,
    in_threads,
    open_source,
    pixels_and_thumbnail,
    remarks_on,
)
from tbps.gallery.ingest.record import Record
from tbps.gallery.ingest.report import IngestReport
from tbps.gallery.ingest.row import Row
from tbps.gallery.ingest.scenes import read_scene
from tbps.gallery.ingest.sources.candidates import Candidate, Sources
from tbps.gallery.ingest.sources.folders import Failure
from tbps.gallery.ingest.videos import add_video, check_start
from tbps.gallery.store.columns import plan_columns
from tbps.gallery.store.layout import FOOTAGE_FILE

OnProgress = Callable[[int, int], None]

_PROGRESS_SKIPS = 64
_UNNAMED = re.compile(r"^<[^>]*>: ")  # how `preprocess.image` names a picture without a path


def ingest(
    folder: Path, writing: Writing, model: Encoder, sources: Sources, options: IngestOptions, on_progress: OnProgress | None
) -> IngestReport:
    """Adds the sources to the gallery in `folder`, to which other processes may add at the same time.

    Raises StorageError on a full or read-only disk and ModelError on broken embeddings; committed rows stay.
    """
    started, photographs = time.monotonic(), options.footage.settings.photographs
    check_start(sources.videos, options.footage)
    people = PeopleFinder(options.footage, model.encode_images)
    if photographs:
        people = people.opened()  # raises an error about a missing package before anything is read
    with writing() as table:
        columns = [candidate.columns for candidate in (*sources.candidates, *sources.videos)]
        crop_columns = [CROP_COLUMNS] if sources.videos or photographs else []
        plan = plan_columns([*columns, *crop_columns], table.extras(), table.doubles_hold)
        table.add_columns(plan.kinds)
        known = Known(table.known(), Record(folder / FOOTAGE_FILE))
        writer = Writer(writing, model, Context(options, people, known, plan.kinds, model.spec, model.fingerprint), table)
    outcome = IngestOutcome.of(writer.context, sources)
    add_pictures(sources.candidates, writer, outcome, on_progress or (lambda done, total: None))
    for video in sources.videos:
        add_video(video, writer, outcome)
    writer.commit()
    return outcome.finish(writer, folder, plan.notes, started)


def add_pictures(candidates: Sequence[Candidate], writer: Writer, outcome: IngestOutcome, progress: OnProgress) -> None:
    """Reads the pictures in threads, and passes their new rows to the writer in order."""
    context, settled, total = writer.context, 0, len(candidates)
    progress(0, total)
    read = partial(read_picture, context=context)
    for picture in in_threads(read, contents_of(candidates), window=2 * context.options.batch_size):
        waits = False
        if not isinstance(picture, ReadPicture):
            outcome.failed.append(picture)
        else:
            for row in outcome.new_rows(picture):
                writer.add(row)
                waits = True
            if picture.finished is not None and not picture.was_finished:
                writer.add_finished(*picture.finished)
                waits = True
        writer.pictures += waits
        settled += not waits
        if due := writer.is_due():
            writer.commit()
        if due or (settled and settled % _PROGRESS_SKIPS == 0):
            progress(writer.settled + settled, total)
    writer.commit()
    progress(total, total)


def read_picture(candidate: Candidate, content: Content, context: Context) -> ReadPicture | Failure:
    """Reads one picture and parses its metadata; returns the reason if that fails. Called by reader threads."""
    try:
        metadata = context.parse(candidate.columns)
        source = open_source(candidate, content)
        if context.options.footage.settings.photographs:
            return read_scene(candidate, metadata, source, context)
        file_hash = content_hash(source)
        at_path = context.known.at_path(candidate, file_hash)
        if (held := context.held_as(file_hash, metadata.camera)) is not None:
            row = Row(candidate, dated_undecoded(metadata, candidate, source), held, None, b"")
            return ReadPicture(candidate, metadata, (row,), file_hash, at_path)
        if context.leaves_as_is(at_path):
            return ReadPicture(candidate, metadata, (), file_hash, at_path)
        photograph = decode(source)
        pixels, thumbnail = pixels_and_thumbnail(photograph.image, context.spec)
        stored_as = context.row_hash(file_hash, metadata.camera)
        row = Row(candidate, dated(metadata, candidate, photograph.taken), stored_as, pixels, thumbnail)
        return ReadPicture(candidate, metadata, (row,), file_hash, at_path, remarks=remarks_on(candidate, photograph))
    except DataError as error:
        return candidate.name, _UNNAMED.sub("", str(error))
    except OSError as error:
        return candidate.name, f"cannot be read ({error.strerror or error})"
