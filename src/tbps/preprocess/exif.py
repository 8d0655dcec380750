"""Capture time of a photograph from its EXIF data.

The first of these that is present and valid is used: DateTimeOriginal with its fraction (SubSecTimeOriginal) and zone
(OffsetTimeOriginal), DateTimeDigitized with its fraction and zone, the GPS time (UTC). A time without a zone is kept without one,
like the times in metadata lines. DateTime is ignored, since it is the time at which the file was last changed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from PIL import ExifTags

_TIMES = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.SubsecTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
)
_TIME = re.compile(r"(\d{4})[:./-](\d{1,2})[:./-](\d{1,2})[ T](\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d+))?)?")
_ZONE = re.compile(r"([+-])(\d{1,2}):?(\d{2})")
_UNKNOWN = re.compile(r"[\s:\0]*")  # EXIF's notation for an unknown time


@dataclass(frozen=True, slots=True)
class Taken:
    """Capture time of a photograph.

    `at`: ISO 8601, with a zone where one is known; None if the image has no time. `unread`: value that could not be parsed as a
    time.
    """

    at: str | None = None
    unread: str | None = None


def taken(details: Mapping[int, Any], place: Mapping[int, Any]) -> Taken:
    """Returns the capture time from the Exif and GPS directories of an image (tag -> value)."""
    unread: str | None = None
    for time, fraction, zone in _TIMES:
        text = _text(details.get(time))
        if _UNKNOWN.fullmatch(text):
            continue
        moment = _moment(text, _text(details.get(fraction)), _text(details.get(zone)))
        if moment is not None:
            return Taken(moment.isoformat(), unread)
        unread = unread or text[:40]
    by_gps = _by_gps(place)
    return Taken(None if by_gps is None else by_gps.isoformat(), unread)


def _moment(text: str, fraction: str, zone: str) -> datetime | None:
    found = _TIME.match(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    digits = found[7] or (fraction.strip() if fraction.strip().isdecimal() else "")
    try:
        moment = datetime(year, month, day, hour, minute, second, int(f"{digits[:6]:0<6}"))
        return (
            moment
            if (known := _zone(zone.strip() or text.strip()[found.end() :].strip())) is None
            else moment.replace(tzinfo=known)
        )
    except ValueError:
        return None


def _zone(text: str) -> timezone | None:
    if text in ("Z", "z"):
        return UTC
    if (found := _ZONE.fullmatch(text)) is None:
        return None
    size = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(size if found[1] == "+" else -size) if size <= timedelta(hours=14) else None


def _by_gps(place: Mapping[int, Any]) -> datetime | None:
    day, clock = _text(place.get(ExifTags.GPS.GPSDateStamp)), place.get(ExifTags.GPS.GPSTimeStamp)
    try:
        hour, minute, second = (float(part) for part in clock or ())
        begin = datetime.strptime(day.strip().replace("-", ":"), "%Y:%m:%d").replace(tzinfo=UTC)
        if not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 61):
            return None
        return begin + timedelta(hours=hour, minutes=minute, seconds=round(second, 3))
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    return value.rstrip("\0").strip() if isinstance(value, str) else ""
