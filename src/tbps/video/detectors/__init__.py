"""Person detectors: a common protocol, and one file per kind of detector."""
