"""Readers of data sets, one file per layout; they do not know each other."""
