"""Maintenance of a gallery: forgetting, retention, snapshots, compaction, re-embedding, export and import."""
