"""Repeated log messages are limited and counted."""

import logging

from tbps.server.quiet import RepeatLimit


def record(message: str, *filled_in: object) -> logging.LogRecord:
    return logging.LogRecord("x", logging.WARNING, "x.py", 1, message, filled_in, None)


def said(rule: RepeatLimit, message: str, *filled_in: object) -> str | None:
    made = record(message, *filled_in)
    return made.getMessage() if rule.filter(made) else None


def test_messages_that_are_left_out_are_counted() -> None:
    now = [0.0]
    rule = RepeatLimit(most=3, seconds=60, clock=lambda: now[0])
    first = [said(rule, "odd request from %s", number) for number in range(10)]
    assert first[:2] == ["odd request from 0", "odd request from 1"]
    assert first[2] == "odd request from 2 (more of this kind are counted and left out for 60 s)" and first[3:] == [None] * 7
    assert said(rule, "another message") == "another message", "each kind has its own count"
    now[0] = 60
    assert said(rule, "odd request from %s", 10) == "odd request from 10 (7 more of this kind were left out)"
    assert said(rule, "odd request from %s", 11) == "odd request from 11"


def test_memory_for_kinds_of_messages_is_bounded() -> None:
    rule = RepeatLimit(most=1, seconds=60, clock=lambda: 0.0)
    for number in range(5000):
        assert said(rule, f"message {number}") is not None
    assert len(rule._seen) <= 1000
