"""Supervision rules: decide from facts alone what is done about a delivery process. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

# A delivery process imports an interpreter and an SDK before it gives its first sign of life. Arbitrary.
START_WAIT_S: Final = 60.0
# Without a sign of life for this long it hangs, if its backends are no less patient: it gives two a second.
SILENCE_S: Final = 30.0
# The least such time, however little the backends ask for: on a busy machine a healthy process may not run for so long. Arbitrary.
LEAST_SILENCE_S: Final = 3.0
# A process that nobody needs is kept for this long: importing an SDK takes seconds.
IDLE_S: Final = 10.0

Action = Literal["wait", "start", "kill", "end"]


class ProcessFacts(NamedTuple):
    """The facts on which the next step for a process depends.

    Attributes:
        lives: whether it has been started, and has not been seen to end.
        wanted: whether anything is to be delivered by it.
        retry_at: when it may be started again; monotonic seconds.
        heard_at: when it gave its last sign of life, or was started.
        patience_s: for how long it may give none.
        wanted_at: when it was wanted last.
    """

    lives: bool
    wanted: bool
    retry_at: float
    heard_at: float
    patience_s: float
    wanted_at: float


class Deaths(NamedTuple):
    """The count of times that a process has ended, or could not be started, while it was wanted.

    Attributes:
        total: in all.
        in_a_row: without that any of its backends had got on.
        why: what of, the last time.
        retry_at: when it may be started again; monotonic seconds.
    """

    total: int = 0
    in_a_row: int = 0
    why: str = ""
    retry_at: float = 0.0


def next_action(facts: ProcessFacts, now: float) -> Action:
    """Decide what is to be done about a process.

    Returns:
        "start" it; "kill" it, since it hangs; "end" it, since nobody needs it; or "wait".
    """
    if not facts.lives:
        return "start" if facts.wanted and now >= facts.retry_at else "wait"
    if now - facts.heard_at > facts.patience_s:
        return "kill"
    return "end" if not facts.wanted and now - facts.wanted_at > IDLE_S else "wait"


def patience_s(stall_timeouts: Iterable[float], *, has_answered: bool) -> float:
    """Find for how long a process may give no sign of life.

    Args:
        stall_timeouts: how long each of its backends may take for a call; seconds.
        has_answered: whether it has given one.
    """
    return max(LEAST_SILENCE_S, min([SILENCE_S, *stall_timeouts])) if has_answered else START_WAIT_S


def find_stalled(busy: Mapping[str, float], stall_timeouts: Mapping[str, float]) -> float | None:
    """Find a delivery that has waited too long for its backend.

    Args:
        busy: for how long each has waited for its backend; seconds.
        stall_timeouts: for how long each may.

    Returns:
        The seconds that the first of them has waited; None where there is none.
    """
    return next((seconds for key, seconds in busy.items() if seconds > stall_timeouts.get(key, float("inf"))), None)
