"""What the worker decides about a run that it serves and about a delivery process, from facts alone. No process, no disk."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack.worker.run_rules import (
    END_INTERVAL_S,
    SAVE_INTERVAL_S,
    RunFacts,
    interval_s,
    is_finished,
    is_overdue,
    next_step,
)
from asynctrack.worker.supervision_rules import (
    IDLE_S,
    LEAST_SILENCE_S,
    SILENCE_S,
    START_WAIT_S,
    ProcessFacts,
    find_stalled,
    next_action,
    patience_s,
)

if TYPE_CHECKING:
    from asynctrack.worker.run_rules import RunStep
    from asynctrack.worker.supervision_rules import Action

RUNS_ON = RunFacts(stopping=False, ended=False, saved=True, done=False, stuck=False, patient=False)
EVERY_RUN = [
    facts
    for facts in itertools.starmap(RunFacts, itertools.product([False, True], repeat=6))
    if facts.stuck or not facts.done
]


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        (RUNS_ON, "wait"),
        (RUNS_ON._replace(done=True, stuck=True), "wait"),
        (RUNS_ON._replace(stuck=True), "wait"),
        (RUNS_ON._replace(stopping=True), "leave"),
        (RUNS_ON._replace(ended=True), "wait"),
        (RUNS_ON._replace(ended=True, done=True, stuck=True), "leave"),
        (RUNS_ON._replace(ended=True, stuck=True), "tell"),
        (RUNS_ON._replace(ended=True, stuck=True, patient=True), "give up"),
        (RUNS_ON._replace(ended=True, stuck=True, patient=True, stopping=True), "leave"),
        (RUNS_ON._replace(ended=True, done=True, stuck=True, saved=False), "tell"),
    ],
)
def test_run_is_served_until_nothing_is_left_to_do(facts: RunFacts, step: RunStep) -> None:
    assert next_step(facts) == step


@pytest.mark.parametrize("facts", EVERY_RUN)
def test_run_that_goes_on_is_left_only_where_somebody_asks(facts: RunFacts) -> None:
    if not facts.ended:
        assert next_step(facts) == ("leave" if facts.stopping else "wait")
    if next_step(facts) == "leave" and not facts.stopping:
        assert is_finished(facts)


def test_run_that_has_ended_is_looked_at_more_often() -> None:
    assert (interval_s(ended=False), interval_s(ended=True)) == (SAVE_INTERVAL_S, END_INTERVAL_S)
    assert END_INTERVAL_S < SAVE_INTERVAL_S


@given(st.booleans(), st.booleans(), st.floats(0, 1000), st.floats(0, 1000))
def test_what_is_behind_is_left_when_its_time_is_up_or_another_worker_wants_it(
    wanted: bool, patient: bool, ended_for_s: float, limit_s: float
) -> None:
    overdue = is_overdue(wanted=wanted, patient=patient, ended_for_s=ended_for_s, limit_s=limit_s)
    if wanted:
        assert overdue
    elif patient:
        assert not overdue
    else:
        assert overdue == (ended_for_s > limit_s)


WELL = ProcessFacts(lives=True, wanted=True, retry_at=0.0, heard_at=100.0, patience_s=5.0, wanted_at=100.0)
DEAD = WELL._replace(lives=False, retry_at=100.0)


@pytest.mark.parametrize(
    ("facts", "now", "action"),
    [
        (DEAD, 99.9, "wait"),
        (DEAD, 100.0, "start"),
        (DEAD._replace(wanted=False), 100.0, "wait"),
        (DEAD._replace(heard_at=0.0), 200.0, "start"),
        (WELL, 105.0, "wait"),
        (WELL, 105.1, "kill"),
        (WELL._replace(wanted=False), 105.1, "kill"),
        (WELL._replace(wanted=False, patience_s=60.0), 100.0 + IDLE_S, "wait"),
        (WELL._replace(wanted=False, patience_s=60.0), 100.1 + IDLE_S, "end"),
        (WELL._replace(patience_s=60.0), 100.1 + IDLE_S, "wait"),
    ],
)
def test_process_is_started_where_it_is_wanted_and_killed_where_it_hangs(
    facts: ProcessFacts, now: float, action: Action
) -> None:
    assert next_action(facts, now) == action


@given(st.lists(st.floats(0.001, 1000)))
def test_process_may_be_silent_for_as_long_as_the_most_impatient_backend_but_not_too_short_nor_too_long(
    timeouts: list[float],
) -> None:
    assert patience_s(timeouts, has_answered=False) == START_WAIT_S
    found = patience_s(timeouts, has_answered=True)
    assert LEAST_SILENCE_S <= found <= SILENCE_S
    assert found in (LEAST_SILENCE_S, SILENCE_S) or found == min(timeouts)


def test_delivery_that_waits_too_long_for_its_backend_is_found() -> None:
    timeouts = {"a": 1.0, "b": 5.0}
    assert find_stalled({"a": 0.9, "b": 4.0}, timeouts) is None
    assert find_stalled({"a": 0.9, "b": 5.1}, timeouts) == 5.1
    assert find_stalled({"who was told to stop": 99.0}, timeouts) is None
