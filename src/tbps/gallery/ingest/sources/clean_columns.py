"""Prepares metadata columns for storage: adds the default camera, and removes passwords from network addresses."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, final

from tbps.gallery.ingest.sources.candidates import Candidate
from tbps.redact import redacted


@final
class ColumnCleaner:
    """Cleans the columns of candidates and counts what it removed.

    camera: for candidates whose metadata name none.
    """

    def __init__(self, camera: str | None) -> None:
        self._camera = camera
        self._removed: Counter[str] = Counter()

    def clean(self, candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
        """The candidates with clean columns; those that need no change are not copied."""
        return tuple(self._clean(candidate) for candidate in candidates)

    @property
    def notes(self) -> tuple[str, ...]:
        """One note per column from which passwords were removed."""
        told = "passwords in addresses were removed from"
        return tuple(f"column {name!r}: {told} {count:,} values" for name, count in self._removed.items())

    def _clean(self, candidate: Candidate) -> Candidate:
        columns = candidate.columns
        if self._camera is not None and columns.get("camera") is None:
            columns = {**columns, "camera": self._camera}
        clean = {name: without_passwords(value) for name, value in columns.items()}
        changed = [name for name, value in clean.items() if value is not columns[name] and value != columns[name]]
        self._removed.update(changed)
        if changed:
            columns = clean
        return candidate if columns is candidate.columns else replace(candidate, columns=columns)


def without_passwords(value: Any) -> Any:
    """A metadata value without the passwords of the addresses in it, in nested lists and objects too."""
    if isinstance(value, str):
        return redacted(value, queries=False)
    if isinstance(value, list | tuple):
        return type(value)(without_passwords(part) for part in value)
    return {name: without_passwords(part) for name, part in value.items()} if isinstance(value, dict) else value
