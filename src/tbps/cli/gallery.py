"""`tbps gallery` and `tbps forget`: what a gallery holds, keeping it small, another model, copies, and forgetting."""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from tbps.cli.console import messages, output, plain, progress

if TYPE_CHECKING:
    from tbps.search.forget import ForgetReport
    from tbps.search.info import GalleryInfo
    from tbps.search.retention import Retention

gallery = typer.Typer(name="gallery", help="Look after a gallery.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="gallery folder made by `tbps index`")]
Yes = Annotated[bool, typer.Option("--yes", help="do not ask")]


@gallery.command()
def info(folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Say what a gallery holds: images, model, columns, cameras and their times, versions, snapshots, retention.

    Example: tbps gallery info my-gallery --json
    """
    from tbps.search.info import describe

    found = describe(folder)
    if as_json:
        values = asdict(found) | {"path": str(folder), "retention": found.retention.model_dump()}
        typer.echo(json.dumps(values, indent=2, default=datetime.isoformat))
    else:
        _show(found)


@gallery.command()
def compact(folder: Folder) -> None:
    """Merge the pieces that many commits left, and remove old versions.

    Indexing does this by itself when it is worth its cost. Whoever writes waits meanwhile; searches go on.

    Example: tbps gallery compact my-gallery
    """
    from tbps.search.compact import compact as compact_gallery

    done = compact_gallery(folder)
    before = f"{done.bytes_before:,} bytes and {done.versions_before:,} versions before"
    _say(f"{before}, {done.bytes_after:,} and {done.versions_after:,} after")


@gallery.command()
def reembed(
    folder: Folder,
    model: Annotated[str, typer.Option(help="model folder or Hugging Face id to search with from then on")],
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="use an image's thumbnail where its file is gone or changed; search suffers")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="drop what another model has begun")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="pictures embedded at a time")] = 64,
) -> None:
    """Embed every image again with another model, from the files that were indexed, and then search with that model.

    The old embeddings answer until all new ones are there. Run it again after an interruption: it goes on where it was. Images
    whose files are gone, have changed, or lie in archives and videos can only be embedded from their thumbnails, of at most 224 x
    256 pixels.

    Example: tbps gallery reembed my-gallery --model models/clip-vit-base-patch16
    """
    from tbps.cli.models import open_model
    from tbps.search.reembed import Reembedding
    from tbps.search.reembed import reembed as reembed_gallery

    if thumbnails:
        _warn("what is embedded from thumbnails of at most 224 x 256 pixels is found less well than from its file")
    opened = open_model(model, folder)
    settings = Reembedding(thumbnails=thumbnails, restart=restart, batch_size=batch_size)
    with progress("embedding", "images") as on_progress:
        done = reembed_gallery(folder, opened, settings, on_progress)
    small = f", {done.from_thumbnails:,} of them from thumbnails" if done.from_thumbnails else ""
    earlier = f", {done.resumed:,} before" if done.resumed else ""
    _say(f"{done.images:,} images embedded with {model}{small}{earlier}; gallery {folder} is searched with it from now on")


@gallery.command()
def export(folder: Folder, target: Annotated[Path, typer.Argument(help="new folder, or new archive ending in .tar")]) -> None:
    """Copy a gallery out: rows as JSON lines, embeddings as .npy, thumbnails as .jpg, with checksums.

    The copy is outside the gallery: what is forgotten later stays in it.

    Example: tbps gallery export my-gallery my-gallery.tar
    """
    from tbps.search.transfer import export as export_gallery

    with progress("exporting", "images") as on_progress:
        done = export_gallery(folder, target, on_progress)
    _say(f"{done.images:,} images written to {target} in {done.seconds:,.1f} s")


@gallery.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="folder or .tar file made by `tbps gallery export`")],
    folder: Annotated[Path, typer.Argument(help="gallery folder of the same model; made if it is not there")],
    model: Annotated[
        str | None, typer.Option(help="model folder or id, for a new gallery; it must be the one that made the export")
    ] = None,
) -> None:
    """Add the images of an export to a gallery of the same model; images that are there already are skipped.

    Everything in it is checked before the first image is added, and nothing is unpacked to disk. Run it again after an
    interruption.

    Example: tbps gallery import my-gallery.tar another-gallery --model models/mannequin-tiny
    """
    from tbps.cli.models import open_model
    from tbps.search.transfer import import_export

    opened = None if model is None else open_model(model, folder)
    with progress("importing", "images") as on_progress:
        done = import_export(folder, source, opened, on_progress)
    _say(f"{done.images:,} images added to {folder}, {done.skipped_existing:,} already there")
    for note in done.notes:
        messages.print(plain(f"note: {note}"), soft_wrap=True)


@gallery.command()
def snapshot(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="letters, digits, dots, dashes and underscores")],
    remove: Annotated[bool, typer.Option("--remove", help="remove this snapshot instead")] = False,
) -> None:
    """Keep the gallery as it is now under a name; costs space only for what is rewritten later.

    Images that are forgotten later go from snapshots too.

    Example: tbps gallery snapshot my-gallery before-monday
    """
    from tbps.search.snapshots import remove_snapshot, take_snapshot

    if remove:
        remove_snapshot(folder, name)
        _say(f"snapshot {name} of gallery {folder} is removed")
    else:
        _say(f"snapshot {name} holds {take_snapshot(folder, name).images:,} images of gallery {folder}")


@gallery.command()
def snapshots(folder: Folder) -> None:
    """List the snapshots of a gallery, oldest first.

    Example: tbps gallery snapshots my-gallery
    """
    from tbps.search.manifest import recorded
    from tbps.search.snapshots import snapshots as list_snapshots

    recorded(folder)
    for kept in list_snapshots(folder):
        _say(f"{kept.name}  {kept.taken}  {kept.images:,} images  {kept.model}")


@gallery.command()
def restore(folder: Folder, name: Annotated[str, typer.Argument(help="name of the snapshot")], yes: Yes = False) -> None:
    """Make the gallery what it was when the snapshot was taken, without what was forgotten since.

    What was added since is lost from the gallery; the snapshot stays. Take another snapshot first to be able to come back.

    Example: tbps gallery restore my-gallery before-monday --yes
    """
    from tbps.search.info import describe
    from tbps.search.snapshots import restore as restore_snapshot

    if not yes:
        typer.confirm(f"{folder} holds {describe(folder).images:,} images. Replace them by those of snapshot {name}?", abort=True)
    _say(f"gallery {folder} holds the {restore_snapshot(folder, name).images:,} images of snapshot {name}")


@gallery.command()
def retention(
    folder: Folder,
    camera: Annotated[list[str] | None, typer.Option(help="set the rule of this camera; may be repeated")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="how long its images are kept")] = None,
    default_days: Annotated[int | None, typer.Option(min=1, help="how long images of other cameras, or of none, are kept")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="take the rules of these cameras, or else the default, away")] = False,
) -> None:
    """Show or change how long images are kept; `tbps gallery retain` then forgets what is older.

    Example: tbps gallery retention my-gallery --camera lobby --days 30 --default-days 90
    """
    from tbps.errors import SettingsError
    from tbps.search.manifest import recorded
    from tbps.search.retention import change_retention, read_retention

    if (bool(camera) and not remove) != (days is not None):
        raise SettingsError("a camera's rule needs both --camera and --days, as in --camera lobby --days 30")
    changes: dict[str | None, int | None] = dict.fromkeys(camera or [], days)
    if default_days is not None or (remove and not camera):
        changes[None] = default_days
    recorded(folder)
    if camera and not remove:
        _say_unknown(folder, camera)
    _show_rules(change_retention(folder, changes) if changes else read_retention(folder))


@gallery.command()
def retain(
    folder: Folder,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Forget what is older than the gallery's rules allow, as `tbps forget` does; made to be run every day.

    Images without a time are kept, since nothing says how old they are.

    Example: tbps gallery retain my-gallery --dry-run
    """
    from tbps.search.retention import retain as retain_gallery

    report = retain_gallery(folder, dry_run)
    if report is None:
        _say(f"gallery {folder} has no rule; set one with: tbps gallery retention {folder} --default-days 90")
    else:
        _tell(report)
        _tell_undated(report)


def forget(
    folder: Folder,
    where: Annotated[str | None, typer.Option(help="filter on the metadata columns, as for tbps search")] = None,
    identity: Annotated[str | None, typer.Option(help="the person of this identity")] = None,
    before: Annotated[str | None, typer.Option(help="images taken before this time (UTC), such as 2024-05-01")] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="the image with this id; may be repeated")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
    yes: Yes = False,
) -> None:
    """Erase images from a gallery for good: rows, thumbnails, embeddings, indices, old versions, and in every snapshot.

    Several options narrow each other. What is in use is written anew without these images, so that their bytes are gone from the
    gallery's folder; if that is interrupted, the next command that opens the gallery completes it. The photographs and videos that
    were indexed, and exports, are yours to remove: indexing a folder again brings its images back. A service's records of uploads
    (GALLERY.service/jobs, kept for 30 days) and its audit log are not looked into.

    Example: tbps forget my-gallery --identity 4711 --dry-run

    Example: tbps forget my-gallery --where "camera = 'lobby'" --before 2024-05-01 --yes
    """
    from tbps.search.forget import Selection
    from tbps.search.forget import forget as forget_images

    selection = Selection(where, identity, before, tuple(ids or ()))
    found = forget_images(folder, selection, dry_run=True)
    if dry_run or not found.images or not yes:
        _tell(found)
        for image in found.sample:
            _say(
                "  " + "  ".join(part for part in (image.id, image.source, image.camera, image.captured_at, image.identity) if part)
            )
        if found.images > len(found.sample):
            _say(f"  and {found.images - len(found.sample):,} more")
    for notice in found.notices:
        _warn(notice)
    if before is not None:
        _tell_undated(found)
    if dry_run or not found.images:
        return
    if not yes:
        typer.confirm("Erase them for good?", abort=True)
    _tell(forget_images(folder, selection))


def _tell(report: "ForgetReport") -> None:
    verb = "would be forgotten" if report.dry_run else f"forgotten in {report.seconds:,.1f} s"
    cameras = ", ".join(f"{name or 'no camera'}: {count:,}" for name, count in sorted(report.cameras.items(), key=str))
    kept = ", ".join(f"{count:,} in snapshot {name}" for name, count in report.snapshots.items())
    where = f"; {report.gallery:,} in the gallery, {kept}" if kept else ""
    _say(f"{report.images:,} images {verb}" + (f" ({cameras}{where})" if report.images else ""))


def _tell_undated(report: "ForgetReport") -> None:
    if report.undated:
        _warn(f"{report.undated:,} images of the gallery have no time and are not reached by an age; choose them by other columns")


def _show(found: "GalleryInfo") -> None:
    table = Table(show_header=False, title=plain(str(found.path)), title_justify="left")
    rules = found.retention
    facts: list[tuple[str, Any]] = [
        ("images", f"{found.images:,}"),
        ("bytes", f"{found.bytes:,}"),
        ("model", f"{found.model} ({found.fingerprint}, {found.dim} numbers)"),
        ("made", found.created),
        ("versions", found.versions),
        ("columns", ", ".join(f"{name} ({kind})" for name, kind in found.columns.items())),
        *(("camera", _span(c.camera, c.images, c.first, c.last)) for c in found.cameras),
        *(("snapshot", f"{s.name}, {s.taken}, {s.images:,} images, {s.model}") for s in found.snapshots),
        *(("kept", line) for line in _rules(rules)),
    ]
    if found.reembedding is not None:
        facts.append(("unfinished", f"{found.reembedding.images:,} images embedded with {found.reembedding.model}"))
    if found.erasing:
        facts.append(("unfinished", "an erasure; the next command that opens or changes the gallery completes it"))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, plain(str(value)))
    output.print(table)


def _span(camera: str | None, images: int, first: datetime | None, last: datetime | None) -> str:
    times = "no times" if first is None or last is None else f"{first.isoformat()} to {last.isoformat()}"
    return f"{camera or 'none'}, {images:,} images, {times}"


def _rules(rules: "Retention") -> list[str]:
    lines = [f"camera {camera}: {days} days" for camera, days in sorted(rules.cameras.items())]
    return [*lines, *([] if rules.default_days is None else [f"all others: {rules.default_days} days"])]


def _say_unknown(folder: Path, cameras: list[str]) -> None:
    """Notes cameras of which there is no image: they may come later, or be mistyped."""
    from tbps.search.filters import no_camera, sentences
    from tbps.search.info import cameras_of
    from tbps.search.numbers import canonical_name

    known = cameras_of(folder)
    for camera in cameras:
        if canonical_name(camera) not in known:
            messages.print(
                plain(f"note: {sentences(no_camera(camera, known), 'The rule holds for images that come later')}"), soft_wrap=True
            )


def _show_rules(rules: "Retention") -> None:
    for line in _rules(rules) or ["no rule: images are kept"]:
        _say(line)


def _say(line: str) -> None:
    output.print(plain(line), soft_wrap=True)


def _warn(line: str) -> None:
    messages.print(plain(f"warning: {line}"), soft_wrap=True)
