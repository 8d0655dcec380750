"""Indexing: turns files, archives and videos into rows of a gallery."""
