"""Exceptions that `tbps` raises on purpose.

    TbpsError
    ├── SettingsError          a setting is unknown, out of range or contradicts another
    ├── DataError
    │   ├── AnnotationError    an annotation file, record or split is wrong; names file, index and field
    │   ├── ImageError         an image cannot be decoded or is refused (corrupt, truncated, too large)
    │   └── CaptionError       a caption is empty or unusable
    ├── ModelError             a model folder is missing, incomplete, of another kind or of another shape
    ├── CheckpointError        a training checkpoint is missing, damaged or belongs to another run
    ├── GalleryError           a gallery is missing or damaged
    │   ├── MixedModelsError   embeddings of two different models would be mixed in one gallery
    │   ├── BusyError          other processes kept writing to a gallery for too long
    │   └── StaleVersionError  another process replaced the version of a gallery that was being read
    ├── QueryError             a search query is empty, malformed or filters on an unknown column
    │   └── UnknownIdError     no image of the gallery has that id, or the caller may not see it
    ├── EvaluationError        metrics are undefined (a query without a relevant image, an empty split)
    ├── StorageError           the disk is full, read-only or a folder cannot be written
    ├── RequestError           a request to the service is refused; carries the HTTP status
    ├── MissingDependencyError an optional package or data file is missing; says how to get it
    └── UnsupportedSystemError tbps does not run on this operating system

Library code raises these and never prints or exits; the command line prints each as one line and exits with code 2. A message
names the offending value and how to correct it. Passwords in network addresses are removed from every message (`redact`).
"""

from tbps.redact import redacted


class TbpsError(Exception):
    """Base class of all exceptions that `tbps` raises on purpose."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*(redacted(part) if isinstance(part, str) else part for part in parts))


class SettingsError(TbpsError):
    """A setting is unknown, out of range or contradicts another."""


class DataError(TbpsError):
    """Input data cannot be used."""


class AnnotationError(DataError):
    """An annotation file, record or split is wrong."""


class ImageError(DataError):
    """An image cannot be decoded or is refused."""


class CaptionError(DataError):
    """A caption is empty or unusable."""


class ModelError(TbpsError):
    """A model folder is missing, incomplete, of another kind or of another shape."""


class CheckpointError(TbpsError):
    """A training checkpoint is missing, damaged or belongs to another run."""


class GalleryError(TbpsError):
    """A gallery is missing or damaged."""


class MixedModelsError(GalleryError):
    """Embeddings of two different models would be mixed in one gallery."""


class BusyError(GalleryError):
    """Other processes kept writing to a gallery for too long."""


class StaleVersionError(GalleryError):
    """Another process replaced the version of a gallery that was being read; the newest version can be read instead."""


class QueryError(TbpsError):
    """A search query is empty, malformed or filters on an unknown column."""


class UnknownIdError(QueryError):
    """No image of the gallery has that id."""


class EvaluationError(TbpsError):
    """Retrieval metrics are undefined for this input."""


class StorageError(TbpsError):
    """The disk is full, read-only, or a folder cannot be written."""


class RequestError(TbpsError):
    """A request to the service is refused.

    `status`: HTTP status; `code`: machine-readable error code; `retry_after`: seconds after which the request may succeed.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after = status, code, retry_after


class MissingDependencyError(TbpsError):
    """An optional package or data file is missing."""


class UnsupportedSystemError(TbpsError):
    """`tbps` does not run on this operating system."""
