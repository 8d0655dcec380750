"""Searching a gallery: from a query to a page of hits."""
