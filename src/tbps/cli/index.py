"""`tbps index`: add images, archives and videos to a gallery."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tbps.cli.console import messages, note, output, plain, titled_progress
from tbps.cli.models import open_model

if TYPE_CHECKING:
    from tbps.gallery import Footage, IngestReport

_SHOWN = 10


def index(
    places: Annotated[
        list[Path],
        typer.Argument(
            help="folders with their subfolders; images; tar and zip archives, WebDataset shards such as "
            "'people-{000..012}.tar'; videos",
            show_default=False,
        ),
    ],
    gallery: Annotated[Path, typer.Option(help="gallery folder; created if it does not exist")],
    model: Annotated[
        str | None,
        typer.Option(envvar="TBPS_MODEL", help="model folder or Hugging Face id; an existing gallery remembers its own"),
    ] = None,
    metadata: Annotated[Path | None, typer.Option(help="metadata file to read instead of FOLDER/metadata.jsonl")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="images per batch of the model")] = 64,
    report: Annotated[Path | None, typer.Option(help="JSON file to write the outcome of every image to")] = None,
    detect: Annotated[
        bool, typer.Option("--detect", help="images show whole scenes: detect and cut out the people in them")
    ] = False,
    detector: Annotated[
        str, typer.Option(help="hog (built in), a .onnx file (YOLO, DETR) or a .json file of ready-made detections (COCO)")
    ] = "hog",
    min_score: Annotated[float, typer.Option(min=0, max=1, help="ignore detections with a lower score")] = 0.5,
    person_class: Annotated[
        int | None, typer.Option(min=0, help="number of the class 'person', if the .onnx file does not name it")
    ] = None,
    detector_layout: Annotated[
        str | None,
        typer.Option(
            help="output format of the .onnx file, if it cannot be recognised: yolox, yolov5, yolov8, yolov10, detr, "
            "conditional-detr or rt-detr"
        ),
    ] = None,
    min_height: Annotated[int, typer.Option(min=1, help="ignore people less tall than this, in pixels")] = 64,
    every: Annotated[
        str, typer.Option(help="interval between the frames of a video that are searched, in seconds (0.5) or frames (12f)")
    ] = "0.5",
    best_per_track: Annotated[
        int, typer.Option(min=1, help="crops to keep per tracklet, that is per person followed through a video")
    ] = 3,
    follow: Annotated[
        str, typer.Option(help="recognise people between frames by their colours, or by the model (slower)")
    ] = "colours",
    camera: Annotated[str | None, typer.Option(help="camera of all images that have none in their metadata")] = None,
    start: Annotated[
        str | None, typer.Option(help="start time of the video, such as 2024-05-01T08:30:00; default: the time in the file")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="skip files and folders that match, such as '*.png', thumbnails or 'drafts/**'; may be repeated"),
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="update the gallery where files were replaced or moved or their metadata changed")
    ] = False,
    retain: Annotated[
        bool, typer.Option("--retain", help="afterwards erase images older than the gallery's retention rules allow")
    ] = False,
) -> None:
    """Embed images and add them to a gallery, in which `tbps search` finds them.

    Run it again at any time: images whose content is already in the gallery are skipped, and an interrupted run is completed.
    Files that cannot be read are listed, and the rest is indexed. Formats are JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, JPEG 2000,
    PPM and, with pip install 'tbps[heic]', HEIC; of animations and files with several pages the first image is used. Hidden files,
    recycle bins, thumbnail folders of network drives (@eaDir) and files that are not images are skipped and counted. In a pattern
    of --exclude, * matches any characters except /, ** any characters and ? one character. A pattern without / is compared with
    the names of files and folders, any other with the path below the indexed folder.

    Files that have changed since they were indexed are listed, the gallery is not updated, and the exit code is 1: changed (the
    path holds another image, which is not added), moved (for example because a folder was renamed), corrected (other metadata) and
    gone. With --refresh, the rows of changed files are replaced and paths and metadata are updated, in one step at the end; images
    of files that are gone stay until tbps forget removes them. A line of metadata replaces all earlier metadata of an image, except
    that a camera stays until a line names another (or null).

    Where metadata has no captured_at, the time of capture in the file (EXIF) is used: in UTC if it has a time zone, else unchanged.

    A `metadata.jsonl` in the folder or archive lists the images to index, one line per image such as {"file_name": "a/1.jpg",
    "camera": "lobby", "captured_at": "2024-05-01T08:30:00"}. Searches can filter on its columns. In WebDataset shards 0001.json
    holds the metadata of 0001.jpg. Nothing is unpacked to disk.

    In videos (and in images with --detect) people are detected and cut out. People in a video are tracked, and the best crops of
    each are kept, with the columns video, tracklet, frame, offset_seconds, captured_at, box_x, box_y, box_width, box_height and
    quality. Boxes are in square pixels of the upright image, as players show it. This needs an extra, in the checkout of tbps:
    pip install -e '.[video]'. The built-in detector finds only whole people who stand or walk and whose height is a sixth of the
    image's longer side or more; a detector of your own in ONNX format finds more.

    A video is finished, and skipped by later runs, once it was read to its true end. Missing or damaged frames, jumps in time
    stamps, and ready-made detections that were not used are reported. Network addresses (rtsp://...) are not read: save the
    stream first.

    For photographs of people use a model trained on photographs; the bundled models/mannequin-tiny knows drawn mannequins only.

    Example: tbps index photos --gallery my-gallery --model models/clip-vit-base-patch16

    Example: tbps index lobby.mp4 --gallery my-gallery --camera lobby --start 2024-05-01T08:30:00 --every 0.5
    """
    from tbps.gallery import Gallery
    from tbps.storage import write_text

    footage = _footage(
        {"photographs": detect, "min_height": min_height, "best_per_track": best_per_track, "follow": follow},
        (every, start, camera),
        (detector, min_score, person_class, detector_layout),
    )
    opened = Gallery.open(gallery, open_model(model, gallery))
    found = places[0] if len(places) == 1 else list(places)
    try:
        with titled_progress() as move:
            outcome = opened.add(
                found,
                metadata,
                lambda done, total: move("indexing", "images", done, total) if total else None,
                batch_size,
                replace(footage, on_video=lambda name, done, total: move(f"watching {name}", "frames", done, total)),
                exclude=exclude or (),
                refresh=refresh,
            )
    except KeyboardInterrupt:
        raise _interrupted(gallery, len(opened)) from None
    _summarise(outcome, len(opened), gallery, report)
    if detector != "hog" and not detect and not outcome.videos:
        note(f"{detector} was not used: photographs are taken whole without --detect")
    if retain and (gone := opened.retain()) is not None:
        output.print(plain(f"{gone.images:,} images forgotten, which were older than the retention rules allow"), soft_wrap=True)
    if report is not None:
        write_text(report, json.dumps(asdict(outcome), indent=2) + "\n")
    _check_any(outcome, places, footage)
    if (outcome.changed or outcome.moved or outcome.corrected or outcome.gone) and not outcome.refreshed:
        raise typer.Exit(1)


def _footage(
    settings: dict[str, object],
    when: tuple[str, str | None, str | None],
    detecting: tuple[str, float, int | None, str | None],
) -> "Footage":
    """Settings for scenes and videos. when: every, start, camera; detecting: detector, min_score, person_class, detector_layout."""
    from tbps.errors import SettingsError
    from tbps.gallery import Footage, FootageSettings, parse_every
    from tbps.preprocess.metadata import parse_time
    from tbps.video import HOG, open_detector

    every, start, camera = when
    began = None if start is None else parse_time(start)
    if start is not None and began is None:
        raise SettingsError(f"--start {start!r} is not an ISO 8601 time such as 2024-05-01T08:30:00")
    place, min_score, _, layout = detecting
    # The built-in detector is opened when the first image needs it, since its package may not be installed.
    opened = None if (place, min_score, layout) == (HOG, 0.5, None) else open_detector(*detecting)
    return Footage(FootageSettings.parse({**settings, **parse_every(every)}), opened, camera, began)


def _interrupted(gallery: Path, images: int) -> typer.Exit:
    messages.print(
        plain(f"interrupted: gallery {gallery} holds {images:,} images; the same command adds what is missing"), soft_wrap=True
    )
    return typer.Exit(130)


def _check_any(outcome: "IngestReport", places: list[Path], footage: "Footage") -> None:
    """Raise DataError if no image was added and none was in the gallery before."""
    from tbps.errors import DataError
    from tbps.video import HOG, open_detector

    if outcome.added or outcome.skipped_existing or outcome.changed:
        return
    where = ", ".join(str(place) for place in places[:3]) + (", ..." if len(places) > 3 else "")
    if outcome.nobody:
        advice = (footage.detector or open_detector(HOG)).advice
        raise DataError(f"no person was found in {where}; {advice}")
    if outcome.failed:
        name, reason = outcome.failed[0]
        raise DataError(f"none of the {len(outcome.failed):,} pictures of {where} could be indexed; the first: {name}: {reason}")


def _summarise(outcome: "IngestReport", images: int, gallery: Path, report: Path | None) -> None:
    """Print counts, one line per video, and the files with problems."""
    from tbps.gallery import describe_left_out

    rate = f" ({outcome.added / outcome.seconds:,.0f} per second)" if outcome.added else ""
    line = (
        f"{outcome.added:,} added in {outcome.seconds:,.1f} s{rate}, {outcome.skipped_existing:,} already there, "
        f"{len(outcome.failed):,} failed; gallery {gallery} holds {images:,} images"
    )
    output.print(plain(line), soft_wrap=True)
    for video in outcome.videos:
        lost = f", {video.missing:,} missing" if video.missing else ""
        lost += f", {video.broken:,} broken packets skipped" if video.broken else ""
        line = f"{video.name}: {video.looked_at:,} of {video.frames:,} frames searched{lost}, {video.detections:,} detections, "
        output.print(plain(f"{line}{video.tracklets:,} tracklets, {video.crops:,} crops"), soft_wrap=True)
    nobody = tuple((name, "no person was found") for name in outcome.nobody)
    for title, rows in (("failed", outcome.failed), ("duplicate", outcome.duplicates), ("nobody", nobody)):
        _list(title, rows, report)
    _print_differences(outcome, gallery, report)
    for remark, names in _by_remark(outcome.remarks).items():
        count = f"{len(names):,} files" if len(names) > 1 else "1 file"
        note(f"{count}: {remark} (such as {names[0]})" if len(names) > 1 else f"{names[0]}: {remark}")
    if outcome.left_out:
        note(describe_left_out(outcome.left_out))
    for line in outcome.notes:
        note(line)


def _print_differences(outcome: "IngestReport", gallery: Path, report: Path | None) -> None:
    """List files that have changed since they were indexed; print whether the gallery was updated, or how to update it."""
    kinds = {"changed": outcome.changed, "moved": outcome.moved, "corrected": outcome.corrected, "gone": outcome.gone}
    for title, rows in kinds.items():
        _list(title, rows, report)
    counts = [f"{len(rows):,} {title}" for title, rows in kinds.items() if rows]
    if counts and outcome.refreshed:
        erased = f"; {outcome.erased:,} images of former content were removed" if outcome.erased else ""
        output.print(plain(f"refreshed: {', '.join(counts)}{erased}"), soft_wrap=True)
    elif counts:
        note(f"files differ from the gallery: {', '.join(counts)}. It was not updated; to update it, run again with --refresh")
    if outcome.gone:
        where = '"source = ' + repr(outcome.gone[0][0]) + '"' if "'" not in outcome.gone[0][0] else "CONDITION"
        note(f"images of files that are gone stay in the gallery (a drive may be unplugged); tbps forget {gallery} --where {where}")


def _list(title: str, rows: Sequence[tuple[str, str]], report: Path | None) -> None:
    """Print the first rows (file, reason) and how many more there are."""
    for name, reason in rows[:_SHOWN]:
        messages.print(Text(f"{title}: ", style="yellow") + plain(f"{name}: {reason}"), soft_wrap=True)
    if len(rows) > _SHOWN:
        where = f"all are in {report}" if report else "--report FILE keeps all"
        messages.print(plain(f"... and {len(rows) - _SHOWN:,} more; {where}"), soft_wrap=True)


def _by_remark(remarks: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Group (file, remark) by remark."""
    found: dict[str, list[str]] = {}
    for name, remark in remarks:
        found.setdefault(remark, []).append(name)
    return found
