"""State folder of a service: its files, the mark that identifies it, and the locks of the running service."""
