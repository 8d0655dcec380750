"""Readers of data sets, one file per layout. Readers do not import each other."""
