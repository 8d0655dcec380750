"""SHA-256 hashes that identify pictures, crops, and finished scenes and videos."""

import hashlib
from collections.abc import Sequence
from typing import Any

from PIL import Image


def content_hash(source: bytes | Image.Image) -> str:
    """Hash of a file's bytes, or of the mode, size and pixels of a picture in memory."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    digest = hashlib.sha256(f"{source.mode} {source.size} ".encode())
    digest.update(source.tobytes())
    return digest.hexdigest()


def camera_hash(content: str, camera: str | None) -> str:
    """Hash of content and camera.

    A caller who may add to some cameras only must not learn which images other cameras have. The same picture is therefore added
    again for the caller's camera, under an id that does not depend on other cameras.
    """
    return digest_of("camera", camera or "", content)


def crop_hash(file: str, frame: Any, box: Sequence[Any]) -> str:
    """Hash of a person's crop: the file's hash, the number of the frame, and the box."""
    return digest_of(file, str(frame), *(str(side) for side in box))


def digest_of(*parts: str) -> str:
    """Hash of several texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
