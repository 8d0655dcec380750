"""`tbps forget`: erase images from a gallery for good."""

from typing import TYPE_CHECKING, Annotated

import typer

from tbps.cli.console import say, warn
from tbps.cli.gallery.arguments import Folder, Yes

if TYPE_CHECKING:
    from tbps.gallery import ForgetReport


def forget(
    folder: Folder,
    where: Annotated[str | None, typer.Option(help="filter on the metadata columns, as for tbps search")] = None,
    identity: Annotated[str | None, typer.Option(help="only images of this identity")] = None,
    before: Annotated[str | None, typer.Option(help="only images taken before this time (UTC), such as 2024-05-01")] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="only the image with this id; may be repeated")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be erased, and erase nothing")] = False,
    yes: Yes = False,
) -> None:
    """Erase images from a gallery for good: rows, thumbnails, embeddings, indices, also in old versions and snapshots.

    Images that meet all given options are erased. The gallery is rewritten without them, so that their bytes are no longer in
    its folder; if that is interrupted, the next command that opens the gallery completes it. The indexed image and video files and
    exports are not deleted: indexing a folder again brings its images back. The service's records of uploads
    (GALLERY.service/jobs, stored for 30 days) and its audit log are not changed.

    Example: tbps forget my-gallery --identity 4711 --dry-run

    Example: tbps forget my-gallery --where "camera = 'lobby'" --before 2024-05-01 --yes
    """
    from tbps.gallery import Selection
    from tbps.gallery import forget as forget_images

    selection = Selection(where, identity, before, tuple(ids or ()))
    found = forget_images(folder, selection, dry_run=True)
    if dry_run or not found.images or not yes:
        print_report(found)
        for image in found.sample:
            say(
                "  " + "  ".join(part for part in (image.id, image.source, image.camera, image.captured_at, image.identity) if part)
            )
        if found.images > len(found.sample):
            say(f"  and {found.images - len(found.sample):,} more")
    for notice in found.notices:
        warn(notice)
    if before is not None:
        warn_undated(found)
    if dry_run or not found.images:
        return
    if not yes:
        typer.confirm("Erase them for good?", abort=True)
    print_report(forget_images(folder, selection))


def print_report(report: "ForgetReport") -> None:
    """Print how many images were or would be erased, by camera and snapshot."""
    verb = "would be forgotten" if report.dry_run else f"forgotten in {report.seconds:,.1f} s"
    cameras = ", ".join(f"{name or 'no camera'}: {count:,}" for name, count in sorted(report.cameras.items(), key=str))
    kept = ", ".join(f"{count:,} in snapshot {name}" for name, count in report.snapshots.items())
    where = f"; {report.gallery:,} in the gallery, {kept}" if kept else ""
    say(f"{report.images:,} images {verb}" + (f" ({cameras}{where})" if report.images else ""))


def warn_undated(report: "ForgetReport") -> None:
    """Warn about images without a time, to which no age limit applies."""
    if report.undated:
        warn(
            f"{report.undated:,} images of the gallery have no time, so no age limit applies to them; select them by other columns"
        )
