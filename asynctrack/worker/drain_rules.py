"""Drain rules: decide from facts alone what the drain does next. Pure functions; standard library only."""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes longer to import than everything else the drain needs
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Final, Literal

    from asynctrack.worker.run_journal import RunJournal

    Round = Literal["poll", "heartbeat", "no answer"]
    AfterFailedOpen = Literal["try again", "keep", "give up"]
    Missing = Literal["nothing", "run", "disk"]
    PartingStep = Literal["let go", "wait for exit", "wait", "check", "drop"]

# Between two tries to write a journal whose disk failed.
RETRY_INTERVAL_S: Final = 0.5
# How long a worker tries to open the run of an ended caller. Then it may leave, and the queue waits for the next worker or
# for `sync`. The default of `after_exit_max_s`.
GIVE_UP_S: Final = 300.0
# Between two looks, and between two syncs, where no run says otherwise.
LINGER_S: Final = 0.1
SYNC_INTERVAL_S: Final = 1.0
# Under pressure: a ring would be full in less than 50 ms, which is what a delivery may take to let go of the interpreter.
PRESSED_RINGS_PER_S: Final = 20.0
PRESSURE_WINDOW_S: Final = 0.02
# A look that finds less than this part of a ring may be followed by sleep.
_CALM: Final = 1 / 4
# A look that finds more than this part of a ring is a late one.
_HALF: Final = 1 / 2


# The values below are classes, not named tuples: to make one of those takes 0.1 ms, and the drain has 9 ms to be there.
class FillRate:
    """The speed at which the rings fill.

    Attributes:
        rings: rings that were moved in this window.
        since: the beginning of the window; monotonic seconds.
        pressed: True if there were too many in the window before.
    """

    __slots__ = ("pressed", "rings", "since")

    def __init__(self, rings: float, since: float, pressed: bool = False) -> None:
        self.rings = rings
        self.since = since
        self.pressed = pressed


class Failure:
    """The reason why a run could not be opened or written the last time, and when it is tried again."""

    __slots__ = ("error", "retry_at")

    def __init__(self, error: Exception, retry_at: float = 0.0) -> None:
        self.error = error
        self.retry_at = retry_at


def fastest_intervals(metas: Iterable[Mapping[str, str]]) -> tuple[float, float]:
    """Find how often to look and to sync: as often as the most eager of the open runs wants.

    Args:
        metas: what the headers of the live rings say.

    Returns:
        Seconds between two looks, and between two syncs.
    """
    metas = list(metas)
    lingers = (float(meta.get("linger_s", LINGER_S)) for meta in metas)
    syncs = (float(meta.get("sync_interval_s", SYNC_INTERVAL_S)) for meta in metas)
    return min(lingers, default=LINGER_S), min(syncs, default=SYNC_INTERVAL_S)


def measure(rate: FillRate, fullest: float, now: float) -> FillRate:
    """Take a round into account.

    While the rate is pressed, the deliveries take the interpreter for one batch every 250 ms only. Imports and deliveries hold it
    for up to 20 ms at a time, in which a tight loop overflows its ring: 31,190 of a million records were dropped before.

    Args:
        rate: what was measured so far.
        fullest: how full the fullest ring was, 0 to 1.
        now: monotonic seconds.
    """
    if fullest > _HALF:  # whoever logs is faster than the drain just now, at whatever speed
        return FillRate(0.0, now, True)
    rings, took_s = rate.rings + fullest, now - rate.since
    if took_s < PRESSURE_WINDOW_S:
        return FillRate(rings, rate.since, rate.pressed)
    return FillRate(0.0, now, rings / took_s > PRESSED_RINGS_PER_S)


def may_sleep(fullest: float) -> bool:
    """Return whether a round has found so little that the drain may sleep."""
    return fullest < _CALM


def is_pressing(used: int, capacity: int) -> bool:
    """Return whether a ring is so full that the drain must not sleep now.

    A producer rings only when it passes half full and sees the drain asleep, so more than that has to be found here.
    """
    return used * 2 > capacity


def next_round(*, is_open: bool, retry_at: float, may_visit: bool, now: float) -> Round:
    """Decide what a round does at a run: move its bytes, or tell its producers only that the worker lives.

    Args:
        is_open: whether the run's journal can be appended to.
        retry_at: when a journal that could not be written is tried again; monotonic seconds.
        may_visit: whether nobody waits for the run's disk.
        now: monotonic seconds.
    """
    if not is_open or now < retry_at:
        return "heartbeat"
    return "poll" if may_visit else "no answer"


def after_failed_open(missing: Missing | None, failing_s: float, *, leaving: bool) -> AfterFailedOpen:
    """Decide what becomes of the ring of an ended caller whose run cannot be opened.

    Args:
        missing: what is not there; None where the run could not be opened for another reason.
        failing_s: for how long it has failed.
        leaving: whether the worker has been asked to end.

    Returns:
        "give up" where the run was removed; "keep" where the ring waits for a later worker, since its disk may come back;
        else "try again".
    """
    if missing is None:
        return "keep" if leaving or failing_s > GIVE_UP_S else "try again"
    if missing == "run":
        return "give up"
    return "keep" if missing == "disk" else "try again"


class Parting:
    """A run that the deliveries have done with.

    Attributes:
        run: its journal.
        done: whether nothing is left to deliver.
        told: the status that the backends were told; None where none was.
        waits: whether the producers have been told that all is done, and only exit codes are waited for.
        notes: how many of the journal's notes the backends and `run.json` have; only counts where a status was told.
    """

    __slots__ = ("done", "notes", "run", "told", "waits")

    def __init__(self, run: RunJournal, done: bool, told: str | None, waits: bool = False, notes: int = 0) -> None:
        self.run = run
        self.done = done
        self.told = told
        self.waits = waits
        self.notes = notes

    def has_news(self) -> bool:
        """Return whether the journal has notes that came too late for the backends and `run.json`."""
        return self.told is not None and self.run.notes != self.notes


def next_parting(
    parting: Parting,
    *,
    status: str | None,
    is_live: bool,
    is_replaced: bool,
    awaits_exit: bool,
    asked_for: bool,
    has_news: bool,
) -> PartingStep:
    """Decide how to go on with a run that the deliveries have done with.

    Args:
        parting: from the run.
        status: of the run.
        is_live: whether somebody has begun to log to it again.
        is_replaced: whether another journal of the run is open by now.
        awaits_exit: whether the exit code of a process is still to come.
        asked_for: whether another worker wants the run, or this one is to end.
        has_news: whether the journal has notes that came too late for the backends and `run.json`.

    Returns:
        "drop" where it goes on; "wait for exit" where its producers need not wait any more but how it ended may still change;
        "wait" while that is so; "check" when it is known, or where there is news; else "let go".
    """
    if parting.waits and awaits_exit and not (is_live or asked_for):
        return "wait"
    if is_live or is_replaced:
        return "drop"
    if parting.waits:
        return "check"
    is_open = awaits_exit or parting.told not in (None, status)
    if parting.done and is_open:
        return "wait for exit"
    return "check" if has_news else "let go"
