"""Galleries: indexing images, searching them, and maintaining the index. Other packages import from here only."""

from typing import TYPE_CHECKING

from tbps.faces import lazy

if TYPE_CHECKING:
    from tbps.gallery.encoder import Encoder, Picture
    from tbps.gallery.gallery import Gallery
    from tbps.gallery.ingest.footage import Footage, FootageSettings, parse_every
    from tbps.gallery.ingest.report import IngestReport
    from tbps.gallery.ingest.sources.candidates import Admission, Named
    from tbps.gallery.ingest.sources.folders import describe_left_out
    from tbps.gallery.lifecycle.compact import compact
    from tbps.gallery.lifecycle.forget import ForgetReport, Selection, forget
    from tbps.gallery.lifecycle.info import GalleryInfo, cameras_of, describe
    from tbps.gallery.lifecycle.reembed import Reembedding, reembed
    from tbps.gallery.lifecycle.retention import change_retention, retain
    from tbps.gallery.lifecycle.snapshots import remove_snapshot, restore, snapshots, take_snapshot
    from tbps.gallery.lifecycle.transfer import export, import_export
    from tbps.gallery.search.calibration import Calibration, calibration_of
    from tbps.gallery.search.check import descriptions
    from tbps.gallery.search.compose import compose
    from tbps.gallery.search.explain import Explanation, Word
    from tbps.gallery.search.explain_picture import draw_explanation
    from tbps.gallery.search.find import find
    from tbps.gallery.search.page import Cutoff, Page
    from tbps.gallery.search.query import RERANKED, Example, Query, Text, phrase
    from tbps.gallery.search.summary import Summary
    from tbps.gallery.search.versions import Versions
    from tbps.gallery.store.columns import as_name
    from tbps.gallery.store.filter_reading import written
    from tbps.gallery.store.filter_text import MOST_CHARACTERS
    from tbps.gallery.store.filters import no_camera, sentences
    from tbps.gallery.store.hit import Group, Hit
    from tbps.gallery.store.lock import lock
    from tbps.gallery.store.manifest import MANIFEST_FILE, Manifest, read_manifest, recorded
    from tbps.gallery.store.moments import Moments
    from tbps.gallery.store.numbers import canonical_name
    from tbps.gallery.store.retention_rules import Retention, read_retention
    from tbps.gallery.store.rows import Rows
    from tbps.gallery.store.table import Table
    from tbps.gallery.store.version import ExactIndex
    from tbps.gallery.store.writing import complete_begun
    from tbps.gallery.suffixes import ARCHIVE_SUFFIXES
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "tbps.gallery.encoder": ["Encoder", "Picture"],
            "tbps.gallery.gallery": ["Gallery"],
            "tbps.gallery.ingest.sources.candidates": ["Admission", "Named"],
            "tbps.gallery.ingest.sources.folders": ["describe_left_out"],
            "tbps.gallery.ingest.footage": ["Footage", "FootageSettings", "parse_every"],
            "tbps.gallery.ingest.report": ["IngestReport"],
            "tbps.gallery.lifecycle.compact": ["compact"],
            "tbps.gallery.lifecycle.forget": ["ForgetReport", "Selection", "forget"],
            "tbps.gallery.lifecycle.info": ["GalleryInfo", "cameras_of", "describe"],
            "tbps.gallery.lifecycle.reembed": ["Reembedding", "reembed"],
            "tbps.gallery.lifecycle.retention": ["change_retention", "retain"],
            "tbps.gallery.lifecycle.snapshots": ["remove_snapshot", "restore", "snapshots", "take_snapshot"],
            "tbps.gallery.lifecycle.transfer": ["export", "import_export"],
            "tbps.gallery.search.calibration": ["Calibration", "calibration_of"],
            "tbps.gallery.search.check": ["descriptions"],
            "tbps.gallery.search.compose": ["compose"],
            "tbps.gallery.search.explain": ["Explanation", "Word"],
            "tbps.gallery.search.explain_picture": ["draw_explanation"],
            "tbps.gallery.search.find": ["find"],
            "tbps.gallery.search.page": ["Cutoff", "Page"],
            "tbps.gallery.search.query": ["Example", "Query", "RERANKED", "Text", "phrase"],
            "tbps.gallery.search.summary": ["Summary"],
            "tbps.gallery.search.versions": ["Versions"],
            "tbps.gallery.store.columns": ["as_name"],
            "tbps.gallery.store.filter_reading": ["written"],
            "tbps.gallery.store.filter_text": ["MOST_CHARACTERS"],
            "tbps.gallery.store.filters": ["no_camera", "sentences"],
            "tbps.gallery.store.hit": ["Group", "Hit"],
            "tbps.gallery.store.lock": ["lock"],
            "tbps.gallery.store.manifest": ["MANIFEST_FILE", "Manifest", "read_manifest", "recorded"],
            "tbps.gallery.store.moments": ["Moments"],
            "tbps.gallery.store.numbers": ["canonical_name"],
            "tbps.gallery.store.retention_rules": ["Retention", "read_retention"],
            "tbps.gallery.store.rows": ["Rows"],
            "tbps.gallery.store.table": ["Table"],
            "tbps.gallery.store.version": ["ExactIndex"],
            "tbps.gallery.store.writing": ["complete_begun"],
            "tbps.gallery.suffixes": ["ARCHIVE_SUFFIXES"],
        },
    )

__all__ = [
    "ARCHIVE_SUFFIXES",
    "MANIFEST_FILE",
    "MOST_CHARACTERS",
    "RERANKED",
    "Admission",
    "Calibration",
    "Cutoff",
    "Encoder",
    "ExactIndex",
    "Example",
    "Explanation",
    "Footage",
    "FootageSettings",
    "ForgetReport",
    "Gallery",
    "GalleryInfo",
    "Group",
    "Hit",
    "IngestReport",
    "Manifest",
    "Moments",
    "Named",
    "Page",
    "Picture",
    "Query",
    "Reembedding",
    "Retention",
    "Rows",
    "Selection",
    "Summary",
    "Table",
    "Text",
    "Versions",
    "Word",
    "as_name",
    "calibration_of",
    "cameras_of",
    "canonical_name",
    "change_retention",
    "compact",
    "complete_begun",
    "compose",
    "describe",
    "describe_left_out",
    "descriptions",
    "draw_explanation",
    "export",
    "find",
    "forget",
    "import_export",
    "lock",
    "no_camera",
    "parse_every",
    "phrase",
    "read_manifest",
    "read_retention",
    "recorded",
    "reembed",
    "remove_snapshot",
    "restore",
    "retain",
    "sentences",
    "snapshots",
    "take_snapshot",
    "written",
]
