"""The gallery on disk and in memory: table, versions, filters, manifest, lock, erasure."""
