"""Person detectors: one protocol, a file per kind."""
