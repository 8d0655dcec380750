"""Uploaded files: reading forms, recognising formats, decoding pictures, indexing jobs."""
