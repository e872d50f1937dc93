"""Run rules: decide from facts alone what comes next for a run that is served. Pure functions."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

# `run.json` is written at most this often while a run goes on.
SAVE_INTERVAL_S: Final = 1.0
# Between two looks at a run that has ended. Arbitrary: soon enough for who waits in `finish`.
END_INTERVAL_S: Final = 0.2

RunStep = Literal["wait", "leave", "tell", "give up"]


class RunFacts(NamedTuple):
    """The facts on which the next step of a run depends.

    Attributes:
        stopping: whether somebody has asked to end soon.
        ended: whether its callers have ended, and `run.json` tells so.
        saved: whether `run.json` is written.
        done: whether each backend has everything.
        stuck: whether each backend has everything or waits for a person.
        patient: whether a person waits, who can be told at once.
    """

    stopping: bool
    ended: bool
    saved: bool
    done: bool
    stuck: bool
    patient: bool


def is_finished(facts: RunFacts) -> bool:
    """Return whether nothing is left to do for a run."""
    return facts.ended and facts.saved and facts.done


def next_step(facts: RunFacts) -> RunStep:
    """Decide how to go on with a run.

    Returns:
        "leave" where nothing is left to do, or somebody has asked for that. "tell" where the rest waits for a person: `finish` does not
        wait for it. "give up" where that person has to be told. Else "wait".
    """
    if facts.stopping or is_finished(facts):
        return "leave"
    if facts.ended and facts.stuck:
        return "give up" if facts.patient else "tell"
    return "wait"


def interval_s(*, ended: bool) -> float:
    """Return for how long nothing may be heard of a run before it is looked at."""
    return END_INTERVAL_S if ended else SAVE_INTERVAL_S


def is_overdue(*, wanted: bool, patient: bool, ended_for_s: float, limit_s: float) -> bool:
    """Decide whether what is behind of a run that has ended is left to `asynctrack sync`.

    Args:
        wanted: whether another worker wants the run, or this one is to end.
        patient: whether it may take as long as it takes.
        ended_for_s: for how long the run has ended.
        limit_s: how long deliveries may go on then.
    """
    return wanted or (not patient and ended_for_s > limit_s)
