"""The two towers: building, loading, saving and embedding."""
