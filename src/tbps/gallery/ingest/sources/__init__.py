"""Finds what there is to index: folders, archives, metadata files, lists."""
