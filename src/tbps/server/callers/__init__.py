"""Identification and limits of callers: keys, sessions, addresses, rates."""
