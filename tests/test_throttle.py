"""What repeats itself is said once in a while, and what is remembered of it does not grow for ever."""

from __future__ import annotations

import pytest

from asynctrack._system import throttle
from asynctrack._system.throttle import ONCE, Throttle


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, as the throttle sees them."""
    now = [1000.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])

    monkeypatch.setattr(throttle, "time", Clock)
    return now


def test_same_thing_is_said_again_when_its_time_is_over(clock: list[float]) -> None:
    said = Throttle()
    assert [said.admit("disk", 60.0), said.admit("disk", 60.0)] == [True, False]
    clock[0] += 59.0
    assert not said.admit("disk", 60.0)
    clock[0] += 1.0
    assert said.admit("disk", 60.0)


def test_things_do_not_hinder_each_other() -> None:
    said = Throttle()
    assert [said.admit("disk"), said.admit("network"), said.admit("disk")] == [True, True, False]


def test_what_is_said_once_is_never_said_again(clock: list[float]) -> None:
    said = Throttle()
    assert said.admit("key", ONCE)
    clock[0] += 1e12
    assert not said.admit("key", ONCE)


def test_what_is_said_though_it_is_not_due_begins_its_time_anew(clock: list[float]) -> None:
    said = Throttle()
    said.note("disk", 60.0)
    clock[0] += 50.0
    said.note("disk", 60.0)
    clock[0] += 50.0
    assert not said.due("disk")


def test_endlessly_many_things_take_a_bounded_memory_and_the_latest_are_remembered() -> None:
    said = Throttle()
    for number in range(20_000):
        assert said.admit(number, ONCE)
    assert len(said._until) <= throttle._MOST
    assert not said.admit(19_999, ONCE)


def test_what_may_be_said_again_is_forgotten_first(clock: list[float]) -> None:
    said = Throttle()
    said.note("lasting", ONCE)
    for number in range(throttle._MOST - 1):
        said.note(number, 1.0)
    clock[0] += 2.0
    said.note("one more", 1.0)
    assert not said.due("lasting")
    assert len(said._until) == 2
