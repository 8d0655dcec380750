"""Detects the format of an uploaded file by its first bytes.

For videos only the container is detected; this excludes playlists, which refer to other files, and pictures in an MP4 container.
Whether a video can be decoded is known only when `tbps.video` opens it.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path, PurePosixPath

from tbps.errors import DataError
from tbps.gallery import ARCHIVE_SUFFIXES
from tbps.server.uploads.pictures import picture_suffix

FORMATS = (
    "pictures (JPEG, PNG, WebP), zip or tar archives of them, videos (MP4, MOV, 3GP, MKV, WebM, AVI, MPEG-TS, MPEG-PS, FLV, WMV)"
)
_START_BYTES = 4096
_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"uuid")  # first box of files of the MP4 family
_PICTURE_BRANDS = {
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"heif", b"mif1", b"mif2", b"mif3", b"msf1"),
    "AVIF": (b"avif", b"avis", b"avio", b"miaf", b"MA1A", b"MA1B"),
    "JPEG 2000": (b"jp2 ", b"jpx ", b"jpm ", b"mjp2", b"jxs "),
    "JPEG XL": (b"jxl ",),
    "camera raw (CR3)": (b"crx ",),
}
_PICTURES_ONLY = {brand: name for name, brands in _PICTURE_BRANDS.items() for brand in brands}
_PACKETS = ((188, 0), (192, 4), (204, 0))  # length of MPEG-TS packets, and offset of the first
_SYNC = 0x47
_SAME = {
    ".jpg": (".jpeg",),
    ".mp4": (".mov", ".m4v"),
    ".mkv": (".webm",),
    ".mpg": (".mpeg",),
    ".ts": (".mts", ".m2ts"),
}  # other suffixes of the same format


class Kind(StrEnum):
    """Kind of an uploaded file."""

    picture = "picture"
    archive = "archive"
    video = "video"


def recognised(file: Path) -> tuple[Kind, str] | None:
    """Kind of a file and the usual suffix of its format, or None if the format is not allowed."""
    found = _recognised(_start(file))
    return None if isinstance(found, str) else found


def refusal(files: Sequence[Path]) -> str | None:
    """Reason to refuse an upload none of whose files has an allowed format; None if at least one has."""
    if any(recognised(file) for file in files):
        return None
    reasons = {reason for file in files if isinstance(reason := _recognised(_start(file)), str)}
    return f"none of the files has a format that can be uploaded: {FORMATS}" + "".join(
        f"; one {reason}" for reason in sorted(reasons)
    )


def _start(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(_START_BYTES)


def _recognised(start: bytes) -> tuple[Kind, str] | str | None:
    """Kind and suffix of an allowed format, the reason for a known one that is not allowed, or None for an unknown one."""
    archive, video = Kind.archive, Kind.video
    if (suffix := picture_suffix(start)) is not None:
        return Kind.picture, suffix
    by_start = {
        b"PK\x03\x04": (archive, ".zip"),
        b"PK\x05\x06": (archive, ".zip"),
        b"\x1f\x8b": (archive, ".tar.gz"),
        b"BZh": (archive, ".tar.bz2"),
        b"\xfd7zXZ\x00": (archive, ".tar.xz"),
        b"\x28\xb5\x2f\xfd": (archive, ".tar.zst"),
        b"\x1a\x45\xdf\xa3": (video, ".mkv"),
        b"\x00\x00\x01\xba": (video, ".mpg"),
        b"FLV\x01": (video, ".flv"),
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": (video, ".wmv"),
    }
    for magic, found in by_start.items():
        if start.startswith(magic):
            return found
    if start[:4] == b"RIFF":
        return (video, ".avi") if start[8:12] == b"AVI " else None
    if start[257:262] == b"ustar":
        return archive, ".tar"
    if start[4:8] in _BOXES:
        brand = _picture_brand(start)
        return (video, ".mp4") if brand is None else f"is a {brand} picture; save it as JPEG or PNG"
    return (video, ".ts") if _is_transport_stream(start) else None


def _picture_brand(start: bytes) -> str | None:
    """Name of the picture format of a file of the MP4 family, by its brands; None for videos."""
    if start[4:8] != b"ftyp":
        return None
    brand = start[8:12]
    if brand in _PICTURES_ONLY:
        return _PICTURES_ONLY[brand]
    following = int.from_bytes(start[:4])
    is_picture = start[following + 4 : following + 8] == b"meta"  # "meta" is the index of a picture file; videos have "moov"
    compatible = [start[at : at + 4] for at in range(16, min(following, len(start)), 4)]
    return next((_PICTURES_ONLY[each] for each in compatible if is_picture and each in _PICTURES_ONLY), None)


def _is_transport_stream(start: bytes) -> bool:
    """Whether all packets start with the sync byte of MPEG-TS; the first packet may be incomplete."""
    for length, lead in _PACKETS:
        for first in range(lead, lead + length):
            places = range(first, len(start), length)
            if len(places) >= 3 and all(start[at] == _SYNC for at in places):
                return True
    return False


def named_as(name: str, kind: Kind, suffix: str) -> str:
    """File name with the suffix of the file's format, since `tbps` chooses a reader by suffix."""
    path = PurePosixPath(name.lower())
    if kind is Kind.archive:
        return name if suffix in ARCHIVE_SUFFIXES and name.lower().endswith(suffix) else f"{name}{suffix}"
    return name if path.suffix in (suffix, *_SAME.get(suffix, ())) else f"{name}{suffix}"


def check_kind(file: Path) -> tuple[Kind, str]:
    """As `recognised`. Raises DataError if the format is not allowed."""
    found = _recognised(_start(file))
    if found is None or isinstance(found, str):
        raise DataError(found or f"has none of the formats that can be uploaded: {FORMATS}")
    return found
