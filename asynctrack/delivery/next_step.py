"""Next step: decides what a delivery does next, from what is known and nothing else. Values and rules only: no sink, file or clock.

A delivery goes in rounds. A round looks for one batch, brings it to the sink part by part, saves the cursor where that is due, and ends. What is
raised ends it too, and the next one goes on with what is known then: a batch that is half taken is still pending.

| What is known | What comes next |
| --- | --- |
| there is no sink; the journal is not open | `OPEN_SINK`; `OPEN_JOURNAL` |
| no batch is pending, and the round has not looked for one | `GATHER`: it finds a batch, the journal's end or the run's |
| the pending batch has media that are not stored | `STORE_MEDIA` |
| no part of it is left | `ADVANCE`: the cursor moves behind it |
| the delivery is to stop, and the sink has nothing of the batch | `END` |
| the sink has had as many records as its rate allows | `WAIT` |
| a part is left | `WRITE`: it is taken, split, or put to the dead letters |
| the run has ended, and the cursor is not saved | `SAVE` |
| the run has ended | `CLOSE`: the sink is told, and the cursor closed |
| a save is due | `SAVE` |
| none of these | `END` |

The driver does the steps, and nothing else decides their order.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from asynctrack.delivery.pending import Pending
from asynctrack.delivery.retry_policy import LONGEST_RETRY_S

# Between two saves of a cursor. What a crash delivers again to a backend that cannot tell is at most this much.
CHECKPOINT_INTERVAL_S: Final = 1.0


class Found(enum.Enum):
    """The result of a round so far."""

    UNKNOWN = "it has not yet come to one"
    BATCH = "the sink has a batch"
    NOTHING = "there is no batch to be given"
    RUN_END = "the run has ended, and the sink has all of it"


class Do(enum.Enum):
    """A kind of step."""

    OPEN_SINK = enum.auto()
    OPEN_JOURNAL = enum.auto()
    GATHER = enum.auto()
    STORE_MEDIA = enum.auto()
    WAIT = enum.auto()
    WRITE = enum.auto()
    ADVANCE = enum.auto()
    SAVE = enum.auto()
    CLOSE = enum.auto()
    END = enum.auto()


class NextStep(NamedTuple):
    """A step, and with `WAIT` for how many seconds."""

    do: Do
    wait_s: float = 0.0


class Rate(NamedTuple):
    """A limit of records a second.

    Attributes:
        records_s: at most; None for as many as come.
        free_at: when the next may be given, monotonic seconds.
    """

    records_s: float | None
    free_at: float = 0.0

    def after(self, records: int, now: float) -> Rate:
        """Return the rate when so many records have been given now."""
        if self.records_s is None:
            return self
        return self._replace(free_at=max(now, self.free_at) + records / self.records_s)


class Situation(NamedTuple):
    """All that decides what comes next.

    Attributes:
        now: monotonic seconds.
        found: the result of the round so far.
        stopping: whether the delivery is to stop soon.
        expedite: whether somebody waits for the cursor to be saved.
        sink_open: whether there is a sink.
        journal_open: whether the journal is being read.
        pending: the batch that the sink has not yet taken whole.
        rate_free_at: when the next part may be given.
        dirty: whether the cursor is not saved as it is.
        saved_at: when it was saved last.
        closed: whether it says that the sink has the run's end.
    """

    now: float
    found: Found = Found.UNKNOWN
    stopping: bool = False
    expedite: bool = False
    sink_open: bool = True
    journal_open: bool = True
    pending: Pending | None = None
    rate_free_at: float = 0.0
    dirty: bool = False
    saved_at: float = 0.0
    closed: bool = False


def next_step(at: Situation) -> NextStep:
    """Decide what comes next in a round."""
    if at.found is Found.UNKNOWN:
        return _to_find(at)
    if at.found is Found.RUN_END and not at.closed:
        return NextStep(Do.SAVE if at.dirty else Do.CLOSE)
    return NextStep(Do.SAVE if save_is_due(at) else Do.END)


def _to_find(at: Situation) -> NextStep:
    """Decide what comes next until the sink has a batch, or there is none."""
    if not at.sink_open:
        return NextStep(Do.OPEN_SINK)
    if not at.journal_open:
        return NextStep(Do.OPEN_JOURNAL)
    if at.pending is None:
        return NextStep(Do.GATHER)
    if at.pending.media:
        return NextStep(Do.STORE_MEDIA)
    if not at.pending.parts:
        return NextStep(Do.ADVANCE)
    if at.stopping:  # of a batch that the sink has in part nothing can be saved, so the rest is given at once
        return NextStep(Do.WRITE if at.pending.taken else Do.END)
    if (wait_s := at.rate_free_at - at.now) > 0:
        return NextStep(Do.WAIT, wait_s)
    return NextStep(Do.WRITE)


def save_is_due(at: Situation) -> bool:
    """Decide whether to save the cursor: it was long ago, or somebody waits and nothing more moves."""
    waited_for = at.expedite and at.found is not Found.BATCH
    return at.dirty and (at.now - at.saved_at > CHECKPOINT_INTERVAL_S or waited_for)


def idle_s(*, dirty: bool, due_in: float) -> float:
    """Decide for how long to wait for the journal to grow: until a save is due, or what is gathered has waited for long enough."""
    return min(CHECKPOINT_INTERVAL_S if dirty else LONGEST_RETRY_S, max(0.0, due_in))


def is_caught_up(*, dirty: bool, due_in: float) -> bool:
    """Decide whether all there is has been delivered and saved, while the delivery waits for more."""
    return not dirty and due_in == float("inf")
