"""The state folder of a service on disk: its files, its mark, and the locks of the running service."""
