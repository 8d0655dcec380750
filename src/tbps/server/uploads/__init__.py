"""Uploads: multipart forms, file formats, decoding of pictures, indexing jobs."""
