"""`tbps index`: pictures, archives and videos into a gallery."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tbps.cli.console import messages, output, plain, titled_progress
from tbps.cli.models import open_model

if TYPE_CHECKING:
    from tbps.gallery import Footage, IngestReport

_SHOWN = 10


def index(
    places: Annotated[
        list[Path],
        typer.Argument(
            help="folders, searched with their subfolders; pictures; tar and zip archives, WebDataset shards such as "
            "'people-{000..012}.tar'; videos",
            show_default=False,
        ),
    ],
    gallery: Annotated[Path, typer.Option(help="gallery folder; made if it is not there, else added to")],
    model: Annotated[
        str | None,
        typer.Option(envvar="TBPS_MODEL", help="model folder or Hugging Face id; an existing gallery remembers its own"),
    ] = None,
    metadata: Annotated[Path | None, typer.Option(help="read this file in place of FOLDER/metadata.jsonl")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures embedded at a time")] = 64,
    report: Annotated[Path | None, typer.Option(help="write what became of every picture to this JSON file")] = None,
    detect: Annotated[bool, typer.Option("--detect", help="photographs show whole scenes: cut out the people in them")] = False,
    detector: Annotated[
        str, typer.Option(help="hog (built in), a .onnx file (YOLO, DETR) or a .json file of ready-made detections (COCO)")
    ] = "hog",
    min_score: Annotated[float, typer.Option(min=0, max=1, help="leave out detections less sure than this")] = 0.5,
    person_class: Annotated[
        int | None, typer.Option(min=0, help="number of the class 'person' in the .onnx file, where it does not tell")
    ] = None,
    detector_layout: Annotated[
        str | None,
        typer.Option(
            help="how the .onnx file gives its boxes, where it does not tell: yolox, yolov5, yolov8, yolov10, detr, "
            "conditional-detr or rt-detr"
        ),
    ] = None,
    min_height: Annotated[int, typer.Option(min=1, help="leave out people less high than this, in pixels")] = 64,
    every: Annotated[str, typer.Option(help="look at a video every so many seconds (0.5) or frames (12f)")] = "0.5",
    best_per_track: Annotated[int, typer.Option(min=1, help="crops kept of each person followed through a video")] = 3,
    follow: Annotated[str, typer.Option(help="know people again by their colours, or by the model (slower)")] = "colours",
    camera: Annotated[str | None, typer.Option(help="the camera of everything that has none in its metadata")] = None,
    start: Annotated[
        str | None, typer.Option(help="when the video began, such as 2024-05-01T08:30:00; else the time in the file")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="leave out files and folders of this name, such as '*.png', thumbnails or 'drafts/**'; may be repeated"),
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="take over what has changed: replaced files, new places, corrected metadata")
    ] = False,
    retain: Annotated[bool, typer.Option("--retain", help="then forget what is older than the gallery's rules allow")] = False,
) -> None:
    """Embed pictures, once each, into a gallery that `tbps search` asks.

    Run it again at any time: pictures that are already there are skipped by their content, and an interrupted run is completed.
    What cannot be read is named, and the rest is indexed. Read are JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, JPEG 2000, PPM and, with
    pip install 'tbps[heic]', HEIC; of animations and several pages the first. Hidden files, recycle bins, thumbnail folders of
    network drives (@eaDir) and files that are no pictures are left out and counted. In an --exclude pattern * stands for any
    characters but /, ** for any, ? for one; without / it is compared with each file's and folder's own name, else with the whole
    name below the indexed folder.

    Files that are not as they were indexed are named, nothing of it is changed, and the exit code is 1: changed (the path holds
    another picture now, which is not added), moved (its folder was renamed, for example), corrected (other metadata) and gone. With
    --refresh the former content's rows are replaced, places and metadata are brought up to date, in one step at the end; what is
    gone stays until tbps forget removes it. A metadata line replaces all that was said of a picture, but a camera stays until the
    line names another (or null).

    Where metadata name no captured_at, the time of capture in the file (EXIF) is used: in UTC where it names its zone, else as it
    is.

    A `metadata.jsonl` in the folder or archive, one line a picture such as {"file_name": "a/1.jpg", "camera": "lobby",
    "captured_at": "2024-05-01T08:30:00"}, names the pictures to index; its columns can be filtered on. In WebDataset shards
    0001.json gives the columns of 0001.jpg. Nothing is unpacked to disk.

    In videos (and photographs with --detect) people are found and cut out. A video's people are followed, and the best crops of
    each are kept, with the columns video, tracklet, frame, offset_seconds, captured_at, box_x, box_y, box_width, box_height and
    quality. Boxes are in square pixels of the upright picture, as players show it. This needs an extra, in the checkout of tbps:
    pip install -e '.[video]'. The built-in detector finds only whole people who stand or walk and fill a sixth of the picture's
    longer side or more; a detector of one's own in ONNX finds more.

    A video counts as done, and is not looked at again, when its true end was reached; frames that are missing or damaged, time
    stamps that jump, and ready-made detections that were not used are told. Network addresses (rtsp://...) are not read: save the
    stream first.

    For photographs of people use a model of photographs; the bundled models/mannequin-tiny knows drawn mannequins only.

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
        messages.print(plain(f"note: {detector} was not used: photographs are taken whole without --detect"), soft_wrap=True)
    if retain and (gone := opened.retain()) is not None:
        output.print(plain(f"{gone.images:,} images forgotten, which were older than the gallery keeps"), soft_wrap=True)
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
    """when: every, start, camera; detecting: detector, least score, class of people, layout of the detector's outputs."""
    from tbps.errors import SettingsError
    from tbps.gallery import Footage, FootageSettings, parse_every
    from tbps.preprocess.metadata import parse_time
    from tbps.video import HOG, open_detector

    every, start, camera = when
    began = None if start is None else parse_time(start)
    if start is not None and began is None:
        raise SettingsError(f"--start {start!r} is no ISO 8601 time such as 2024-05-01T08:30:00")
    place, min_score, _, layout = detecting
    # The plain built-in detector is opened when the first picture needs it: not everybody has its package.
    opened = None if (place, min_score, layout) == (HOG, 0.5, None) else open_detector(*detecting)
    return Footage(FootageSettings.parse({**settings, **parse_every(every)}), opened, camera, began)


def _interrupted(gallery: Path, images: int) -> typer.Exit:
    messages.print(
        plain(f"interrupted: gallery {gallery} holds {images:,} images; the same command adds what is missing"), soft_wrap=True
    )
    return typer.Exit(130)


def _check_any(outcome: "IngestReport", places: list[Path], footage: "Footage") -> None:
    """Raises DataError where nothing at all came into the gallery."""
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
    from tbps.gallery import describe_left_out

    rate = f" ({outcome.added / outcome.seconds:,.0f} a second)" if outcome.added else ""
    line = (
        f"{outcome.added:,} added in {outcome.seconds:,.1f} s{rate}, {outcome.skipped_existing:,} already there, "
        f"{len(outcome.failed):,} failed; gallery {gallery} holds {images:,} images"
    )
    output.print(plain(line), soft_wrap=True)
    for video in outcome.videos:
        lost = f", {video.missing:,} missing" if video.missing else ""
        lost += f", {video.broken:,} broken packets skipped" if video.broken else ""
        line = f"{video.name}: {video.looked_at:,} of {video.frames:,} frames looked at{lost}, {video.detections:,} detections, "
        output.print(plain(f"{line}{video.tracklets:,} tracklets, {video.crops:,} crops"), soft_wrap=True)
    nobody = tuple((name, "no person was found") for name in outcome.nobody)
    for title, rows in (("failed", outcome.failed), ("duplicate", outcome.duplicates), ("nobody", nobody)):
        _list(title, rows, report)
    _tell_differences(outcome, gallery, report)
    for remark, names in _by_remark(outcome.remarks).items():
        count = f"{len(names):,} files" if len(names) > 1 else "1 file"
        _note(f"{count}: {remark} (such as {names[0]})" if len(names) > 1 else f"{names[0]}: {remark}")
    if outcome.left_out:
        _note(describe_left_out(outcome.left_out))
    for note in outcome.notes:
        _note(note)


def _tell_differences(outcome: "IngestReport", gallery: Path, report: Path | None) -> None:
    """What is not as it was indexed, how much of it was taken over, and the way out."""
    kinds = {"changed": outcome.changed, "moved": outcome.moved, "corrected": outcome.corrected, "gone": outcome.gone}
    for title, rows in kinds.items():
        _list(title, rows, report)
    counts = [f"{len(rows):,} {title}" for title, rows in kinds.items() if rows]
    if counts and outcome.refreshed:
        erased = f"; {outcome.erased:,} images of former content were removed" if outcome.erased else ""
        output.print(plain(f"refreshed: {', '.join(counts)}{erased}"), soft_wrap=True)
    elif counts:
        _note(f"not as indexed: {', '.join(counts)}. Nothing of it was changed; run again with --refresh to take it over")
    if outcome.gone:
        where = '"source = ' + repr(outcome.gone[0][0]) + '"' if "'" not in outcome.gone[0][0] else "CONDITION"
        _note(
            f"images of files that are gone stay in the gallery (a drive may be unplugged); tbps forget {gallery} --where {where}"
        )


def _list(title: str, rows: Sequence[tuple[str, str]], report: Path | None) -> None:
    for name, reason in rows[:_SHOWN]:
        messages.print(Text(f"{title}: ", style="yellow") + plain(f"{name}: {reason}"), soft_wrap=True)
    if len(rows) > _SHOWN:
        where = f"all are in {report}" if report else "--report FILE keeps all"
        messages.print(plain(f"... and {len(rows) - _SHOWN:,} more; {where}"), soft_wrap=True)


def _by_remark(remarks: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, remark in remarks:
        found.setdefault(remark, []).append(name)
    return found


def _note(text: str) -> None:
    messages.print(Text("note: ", style="yellow") + plain(text), soft_wrap=True)
