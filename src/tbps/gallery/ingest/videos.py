"""Indexes videos: searches each of them for people, unless an earlier run has finished it."""

from collections.abc import Sequence
from pathlib import Path

from tbps.errors import DataError, MissingDependencyError, SettingsError
from tbps.gallery.ingest.commits import Writer
from tbps.gallery.ingest.footage import Footage, VideoReport
from tbps.gallery.ingest.outcome import IngestOutcome
from tbps.gallery.ingest.reading import ReadPicture, check_file
from tbps.gallery.ingest.record import Finished
from tbps.gallery.ingest.scenes import crop_row
from tbps.gallery.ingest.sources.candidates import Candidate
from tbps.preprocess.metadata import parse_time
from tbps.storage import file_hash
from tbps.video import Tally


def check_start(videos: Sequence[Candidate], footage: Footage) -> None:
    """Raises SettingsError when one start is given for several videos."""
    without_time = [video.name for video in videos if video.columns.get("captured_at") is None]
    if footage.start is not None and len(without_time) > 1:
        raise SettingsError(
            f"start {footage.start} is that of one recording, but there are {len(without_time)} videos ({without_time[0]}, "
            "...); index them one by one, or give each its captured_at in a metadata.jsonl"
        )


def add_video(video: Candidate, writer: Writer, outcome: IngestOutcome) -> None:
    """Stores the people in one video. It is recorded as finished only if it was decoded to its true end."""
    tally = Tally()
    try:
        scene = _search(video, writer, outcome, tally)
    except (DataError, MissingDependencyError) as error:
        outcome.failed.append((video.name, str(error)))
        return
    except OSError as error:
        outcome.failed.append((video.name, f"cannot be read ({error.strerror or error})"))
        return
    if scene is None:
        return
    if not tally.frames:
        outcome.failed.append((video.name, f"none of its frames can be decoded ({tally.broken} broken packets)"))
        return
    outcome.notes += [f"{video.name}: {remark}" for remark in tally.remarks]
    if tally.incomplete is None:
        writer.add_finished(*scene)
    else:
        reason = f"is incomplete: {tally.incomplete}; what was found is kept; when it is whole, index it with --refresh"
        outcome.failed.append((video.name, reason))
    outcome.videos.append(VideoReport.of(video.name, tally))
    outcome.nobody += [] if tally.crops else [video.name]


def _search(video: Candidate, writer: Writer, outcome: IngestOutcome, tally: Tally) -> Finished | None:
    """Searches a video; returns its record, None when an earlier run finished it or `Context.leaves_as_is` applies."""
    context, path = writer.context, video.picture
    if not isinstance(path, Path):
        raise DataError("is no file")
    check_file(path)
    metadata, people = context.parse(video.columns), context.people.opened()
    content = file_hash(path)
    stored_as = context.row_hash(content, metadata.camera)
    context.known.refresh_finished()
    at_path = context.known.at_path(video, content)
    outcome.changes.note_former(video, at_path.former)
    before = context.finished(content, video.columns, metadata.camera, people)
    if before is not None and not context.searches_again(at_path):
        start = parse_time(video.columns.get("captured_at")) or context.start
        outcome.count_finished(ReadPicture(video, metadata, (), content, at_path, before, was_finished=True), start)
        return None
    if context.leaves_as_is(at_path):
        return None
    scene = context.scene(stored_as, video.columns, people)
    key = scene.key if before is None else ""
    for crop, own in people.in_video(video.name, path, scene.key, video.columns, tally):
        row = crop_row(crop, video, context.parse({**video.columns, **own}), stored_as, key, context)
        if outcome.is_new(row):
            writer.add(row)
        if writer.is_due():
            writer.commit()
    return scene
