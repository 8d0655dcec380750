"""Finds the pictures and videos to index: in folders, archives, metadata files and lists."""
