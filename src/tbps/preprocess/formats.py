"""Image file formats: supported formats, known but unsupported formats, and detection of a format by the first bytes."""

import threading
from importlib import import_module

from PIL import Image

FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF", "BMP", "JPEG2000", "PPM")
NAMES = "JPEG, PNG, WebP, GIF, AVIF, HEIC, TIFF, BMP, JPEG 2000, PPM"
HEIF = "HEIF"
HEIC_NEEDS = "HEIC pictures need pillow-heif, which is not installed; run: pip install 'tbps[heic]' (in a checkout: '.[heic]')"

_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjpg", ".mpo"}
_JPEG_2000 = {".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"}
_HEIC = {".heic", ".heif", ".heics", ".heifs", ".hif"}
PICTURES = frozenset(
    {*_JPEG, *_JPEG_2000, *_HEIC, ".png", ".apng", ".webp", ".gif", ".avif", ".avifs", ".bmp", ".dib", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
RAW = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".gpr", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw"}
    | {".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
OTHER_PICTURES = RAW | frozenset(
    {".ai", ".bpg", ".cdr", ".cur", ".dcm", ".dds", ".djvu", ".emf", ".eps", ".exr", ".fit", ".fits", ".flif", ".hdr", ".icns"}
    | {".ico", ".indd", ".jxl", ".jxr", ".kra", ".pcd", ".pcx", ".pdf", ".ps", ".psb", ".psd", ".qoi", ".svg", ".svgz", ".tga"}
    | {".wdp", ".wmf", ".xcf"}
)

_PICTURE_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
}
_OTHER_STARTS = {
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript document",
    b"8BPS": "a Photoshop document",
    b"PK\3\4": "a zip archive",
    b"\x1f\x8b": "a packed file (gzip)",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x1a\x45\xdf\xa3": "a video (Matroska or WebM)",
    b"FUJIFILMCCD-RAW": "a raw photograph",
    b"\0\0\0\x0cJXL ": "a JPEG XL picture",
    b"\xff\x0a": "a JPEG XL picture",
}
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
HEAD = 64  # bytes that `picture_format` and `described` need

_registering = threading.Lock()


def unread_reason(suffix: str) -> str:
    """Returns why a file with a suffix of OTHER_PICTURES is not read, and what to do."""
    if suffix in RAW:
        return "is a raw photograph, which is not read; export it as JPEG"
    return "is a picture of a format that is not read; save it as JPEG or PNG"


def picture_format(head: bytes) -> str | None:
    """Returns Pillow's name of the image format that a file begins with, None for other files."""
    for start, name in _PICTURE_STARTS.items():
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "BMP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    return _by_brand(head) if head[4:8] == b"ftyp" else None


def described(head: bytes) -> str:
    """Describes, for an error message, a file that is not a readable image."""
    known = [name for start, name in _OTHER_STARTS.items() if head.startswith(start)]
    if not head.strip(b"\0"):
        return "holds zero bytes only" if head else "is empty"
    if known or picture_format(head) is not None:
        return f"is {known[0]}" if known else "is damaged"
    if head[4:8] == b"ftyp":
        return "is a video or a picture of an unknown kind"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<svg", b"<body")):
        return "holds a web page or XML"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "holds text"
    return "is damaged or of an unknown format"


def heif_formats() -> tuple[str, ...]:
    """Registers HEIF with Pillow and returns (HEIF,); () where pillow-heif is not installed."""
    with _registering:
        try:
            opener = import_module("pillow_heif")
        except ImportError:
            return ()
        if HEIF not in Image.OPEN:
            opener.register_heif_opener()
        return (HEIF,)


def _by_brand(head: bytes) -> str | None:
    """Distinguishes AVIF from HEIF, which share a container, by the major brand or else by the compatible brands."""
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, length - 3, 4))]
    for brand in brands:
        if brand in _AVIF_BRANDS:
            return "AVIF"
        if brand in _HEIC_BRANDS:
            return HEIF
    return HEIF if brands[0] in (b"mif1", b"msf1") else None
