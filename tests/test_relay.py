"""Relay: who makes the rounds while one thread is held up and another follows it."""

from __future__ import annotations

import threading

import pytest
from support import DEADLINE_S, wait_until

from asynctrack.worker.relay import Relay


def test_rounds_count_as_made_while_the_thread_that_follows_is_yet_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a busy machine takes the worker for gone, and a second one serves the same runs."""
    held_up, answers = threading.Event(), threading.Event()

    def hang() -> None:
        held_up.set()
        answers.wait(DEADLINE_S)

    relay = Relay("rounds", lambda: relay.visit("run", None, hang))
    relay.start()
    held_up.wait(DEADLINE_S)
    alive: list[bool] = []
    start = threading.Thread.start

    def start_later(thread: threading.Thread) -> None:
        alive.append(relay.is_alive())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_later)

    def relieved() -> set[str]:
        relay.relieve()
        return relay.held

    wait_until(relieved, "another thread makes the rounds")
    answers.set()
    assert alive == [True]
    relay.join(DEADLINE_S)
    assert not relay.is_alive()
