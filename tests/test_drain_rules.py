"""What the drain decides, from facts alone: tables, and properties that hold for all facts. No process, no disk."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.worker.drain_rules import (
    GIVE_UP_S,
    LINGER_S,
    PRESSED_RINGS_PER_S,
    PRESSURE_WINDOW_S,
    SYNC_INTERVAL_S,
    FillRate,
    Parting,
    after_failed_open,
    fastest_intervals,
    is_pressing,
    may_sleep,
    measure,
    next_parting,
    next_round,
)
from asynctrack.worker.run_journal import RunJournal

if TYPE_CHECKING:
    from asynctrack.worker.drain_rules import AfterFailedOpen, Missing, PartingStep, Round


@pytest.mark.parametrize(
    ("is_open", "retry_at", "may_visit", "step"),
    [
        (True, 0.0, True, "poll"),
        (True, 10.0, True, "poll"),
        (True, 10.1, True, "heartbeat"),
        (True, 10.1, False, "heartbeat"),
        (True, 0.0, False, "no answer"),
        (False, 0.0, True, "heartbeat"),
        (False, 0.0, False, "heartbeat"),
    ],
)
def test_round_moves_bytes_only_where_the_disk_is_not_known_to_fail(
    is_open: bool, retry_at: float, may_visit: bool, step: Round
) -> None:
    assert next_round(is_open=is_open, retry_at=retry_at, may_visit=may_visit, now=10.0) == step


@pytest.mark.parametrize(
    ("missing", "failing_s", "leaving", "step"),
    [
        ("run", 0.0, False, "give up"),
        ("run", 0.0, True, "give up"),
        ("disk", 0.0, False, "keep"),
        ("nothing", 0.0, True, "try again"),
        ("nothing", 2 * GIVE_UP_S, False, "try again"),
        (None, 0.0, False, "try again"),
        (None, GIVE_UP_S, False, "try again"),
        (None, GIVE_UP_S + 1, False, "keep"),
        (None, 0.0, True, "keep"),
    ],
)
def test_queue_is_given_up_only_where_its_run_was_removed(
    missing: Missing | None, failing_s: float, leaving: bool, step: AfterFailedOpen
) -> None:
    assert after_failed_open(missing, failing_s, leaving=leaving) == step


def test_intervals_are_those_of_the_most_eager_run_each() -> None:
    metas = [{"linger_s": "0.5", "sync_interval_s": "0.25"}, {"linger_s": "0.01"}, {}]
    assert fastest_intervals(metas) == (0.01, 0.25)
    assert fastest_intervals([{"linger_s": "7"}]) == (7.0, SYNC_INTERVAL_S)
    assert fastest_intervals([]) == (LINGER_S, SYNC_INTERVAL_S)


def test_pressure_is_known_when_a_window_has_passed_and_stays_for_the_next() -> None:
    third = 1.5 * PRESSED_RINGS_PER_S * PRESSURE_WINDOW_S / 3
    rate = FillRate(0.0, 100.0)
    for part in (0.2, 0.3, 0.5):
        rate = measure(rate, third, 100.0 + PRESSURE_WINDOW_S * part)
    assert not rate.pressed
    rate = measure(rate, 0.0, 100.0 + PRESSURE_WINDOW_S * 1.01)
    assert rate.pressed
    rate = measure(rate, 0.0, 100.0 + PRESSURE_WINDOW_S * 1.5)
    assert rate.pressed
    assert not measure(rate, 0.0, 100.0 + PRESSURE_WINDOW_S * 2.1).pressed


def test_look_that_finds_more_than_half_a_ring_is_pressure_at_once() -> None:
    rate = measure(FillRate(0.0, 100.0), 0.6, 100.001)
    assert rate.pressed
    assert not measure(rate, 0.0, rate.since + PRESSURE_WINDOW_S * 1.01).pressed


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0001, 0.05)), min_size=1, max_size=50))
def test_rate_of_rings_is_pressed_where_the_last_whole_window_had_too_many_or_a_look_came_late(
    rounds: list[tuple[float, float]],
) -> None:
    rate, now, begun, rings, pressed = FillRate(0.0, 0.0), 0.0, 0.0, 0.0, False
    for fullest, took_s in rounds:
        now += took_s
        rings += fullest
        if fullest > 1 / 2:
            pressed, begun, rings = True, now, 0.0
        elif now - begun >= PRESSURE_WINDOW_S:
            pressed, begun, rings = rings / (now - begun) > PRESSED_RINGS_PER_S, now, 0.0
        rate = measure(rate, fullest, now)
        assert (rate.rings, rate.since, rate.pressed) == (rings, begun, pressed)


@given(st.integers(1, 1 << 24).map(lambda words: 8 * words), st.data())
def test_no_ring_fills_unseen_while_the_drain_sleeps(capacity: int, data: st.DataObject) -> None:
    """More than half of a ring keeps the drain awake; half of it is left for what comes until it wakes."""
    used = data.draw(st.integers(0, capacity))
    assert is_pressing(used, capacity) == (used > capacity // 2)
    assert may_sleep(used / capacity) == (used < capacity / 4)


RUN = RunJournal("/nowhere")


class PartingFacts(NamedTuple):
    """What a parting depends on."""

    status: str
    is_live: bool
    is_replaced: bool
    awaits_exit: bool
    asked_for: bool
    has_news: bool = False


EVERY_FACT = [
    PartingFacts(status, *flags)
    for status in ("finished", "failed")
    for flags in itertools.product([False, True], repeat=5)
]
EVERY_PARTING = [
    Parting(RUN, done, told, waits)
    for done in (True, False)
    for told in (None, "finished", "failed")
    for waits in (True, False)
    if done or not waits
]


@pytest.mark.parametrize(
    ("parting", "facts", "step"),
    [
        (Parting(RUN, True, "finished"), PartingFacts("finished", False, False, False, False), "let go"),
        (Parting(RUN, True, "finished"), PartingFacts("finished", False, False, False, False, True), "check"),
        (Parting(RUN, False, "finished"), PartingFacts("finished", False, False, False, False, True), "check"),
        (Parting(RUN, True, None), PartingFacts("finished", False, False, False, False), "let go"),
        (Parting(RUN, False, None), PartingFacts("finished", False, False, True, False), "let go"),
        (Parting(RUN, True, "finished"), PartingFacts("finished", False, False, True, False), "wait for exit"),
        (Parting(RUN, True, "finished"), PartingFacts("failed", False, False, False, False), "wait for exit"),
        (Parting(RUN, True, "finished"), PartingFacts("finished", True, False, False, False), "drop"),
        (Parting(RUN, True, "finished"), PartingFacts("finished", False, True, False, False), "drop"),
        (Parting(RUN, True, "finished", True), PartingFacts("finished", False, False, True, False), "wait"),
        (Parting(RUN, True, "finished", True), PartingFacts("finished", False, False, True, True), "check"),
        (Parting(RUN, True, "finished", True), PartingFacts("failed", False, False, False, False), "check"),
        (Parting(RUN, True, "finished", True), PartingFacts("finished", True, False, True, False), "drop"),
        (Parting(RUN, True, "finished", True), PartingFacts("finished", False, True, False, False), "drop"),
    ],
)
def test_run_is_let_go_of_when_it_is_known_how_it_ended(
    parting: Parting, facts: PartingFacts, step: PartingStep
) -> None:
    assert next_parting(parting, **facts._asdict()) == step


@pytest.mark.parametrize("parting", EVERY_PARTING)
def test_run_that_goes_on_is_never_let_go_of(parting: Parting) -> None:
    for facts in EVERY_FACT:
        if facts.is_live:
            assert next_parting(parting, **facts._asdict()) == "drop"
        elif facts.is_replaced:
            assert next_parting(parting, **facts._asdict()) in ("drop", "wait")


@pytest.mark.parametrize("parting", EVERY_PARTING)
def test_nothing_is_waited_for_once_another_worker_wants_the_run(parting: Parting) -> None:
    for facts in EVERY_FACT:
        if facts.asked_for:
            assert next_parting(parting, **facts._asdict()) != "wait"
