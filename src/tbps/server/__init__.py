"""The service: a gallery over HTTP for people and programs, behind keys, roles and an audit log."""
