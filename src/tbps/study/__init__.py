"""Recipes and, later, the tables of the paper."""
