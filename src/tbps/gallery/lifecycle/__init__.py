"""Looking after a gallery: forgetting, retention, snapshots, compaction, another model, export and import."""
