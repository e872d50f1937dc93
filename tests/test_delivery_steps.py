"""Delivery's rules as tables: what comes next, what an answer of the sink leaves, when a batch is cut. No process, no file, no clock."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrack import Backend, Batch, Rejected, TooLarge
from asynctrack.backends.base import BATCH_BYTES, Update
from asynctrack.delivery import retry_policy
from asynctrack.delivery.failures import Failures
from asynctrack.delivery.gathering import BatchLimits, DeliveryBatch, Gathering, is_ready, wanted_updates
from asynctrack.delivery.next_step import (
    CHECKPOINT_INTERVAL_S,
    Do,
    Found,
    NextStep,
    Rate,
    Situation,
    idle_s,
    is_caught_up,
    next_step,
    save_is_due,
)
from asynctrack.delivery.pending import Pending
from asynctrack.delivery.reports import failure_message
from asynctrack.delivery.retry_policy import LONGEST_RETRY_S, MOST_REPEATS, RetryDecision, classify_resend
from asynctrack.journal.cursor import Cursor
from asynctrack.journal.layout import Position
from asynctrack.queue.layout import CHECKPOINT, CONFIG, LABELS, SUMMARY
from asynctrack.records.codec import Record

NOW = 1000.0
INF = float("inf")


def records(count: int) -> list[Record]:
    return [Record(number, number, number * 10**9, {"i": number}) for number in range(count)]


def updates(count: int) -> list[Update]:
    return [Update("summary", number, {"key": number}) for number in range(count)]


def cut(count: int, changes: int = 0, *, media: bool = False, **skipped: int) -> DeliveryBatch:
    return DeliveryBatch(Batch(records(count), updates(changes)), skipped, Position(1, 64, count), {7: count}, media)


WHOLE = Pending.of(cut(4))
HALF = WHOLE.refuse(TooLarge("no"))[0].take(None)
ALL = WHOLE.take(None)


# What comes next


def situation(**known: Any) -> Situation:
    return Situation(**{"now": NOW, "saved_at": NOW, **known})


NEXT = {
    "nothing is open": ({"sink_open": False, "journal_open": False}, NextStep(Do.OPEN_SINK)),
    "a batch waits for its sink": ({"sink_open": False, "pending": WHOLE}, NextStep(Do.OPEN_SINK)),
    "the journal is not open": ({"journal_open": False}, NextStep(Do.OPEN_JOURNAL)),
    "no batch is there": ({}, NextStep(Do.GATHER)),
    "a save is due, but the round has just begun": ({"dirty": True, "saved_at": 0.0}, NextStep(Do.GATHER)),
    "there are media": ({"pending": Pending.of(cut(4, media=True))}, NextStep(Do.STORE_MEDIA)),
    "the media are stored": ({"pending": Pending.of(cut(4, media=True)).store()}, NextStep(Do.WRITE)),
    "a batch is there": ({"pending": WHOLE}, NextStep(Do.WRITE)),
    "half of it is taken": ({"pending": HALF}, NextStep(Do.WRITE)),
    "all of it is taken": ({"pending": ALL}, NextStep(Do.ADVANCE)),
    "all of it was left out": ({"pending": Pending.of(cut(0, downsampled=3))}, NextStep(Do.ADVANCE)),
    "the rate is used up": ({"pending": WHOLE, "rate_free_at": NOW + 3}, NextStep(Do.WAIT, 3.0)),
    "the rate is free again": ({"pending": WHOLE, "rate_free_at": NOW}, NextStep(Do.WRITE)),
    "it is to stop": ({"pending": WHOLE, "stopping": True}, NextStep(Do.END)),
    "it is to stop while the rate is used up": (
        {"pending": WHOLE, "stopping": True, "rate_free_at": NOW + 3},
        NextStep(Do.END),
    ),
    "it is to stop in the middle of a batch": (
        {"pending": HALF, "stopping": True, "rate_free_at": NOW + 3},
        NextStep(Do.WRITE),
    ),
    "it is to stop behind a batch": ({"pending": ALL, "stopping": True}, NextStep(Do.ADVANCE)),
    "a batch is delivered": ({"found": Found.BATCH, "dirty": True}, NextStep(Do.END)),
    "a batch is delivered, and more may come soon": (
        {"found": Found.BATCH, "dirty": True, "expedite": True},
        NextStep(Do.END),
    ),
    "a batch is delivered long after a save": (
        {"found": Found.BATCH, "dirty": True, "saved_at": 0.0},
        NextStep(Do.SAVE),
    ),
    "nothing is there": ({"found": Found.NOTHING, "dirty": True}, NextStep(Do.END)),
    "nothing is there, and somebody waits": (
        {"found": Found.NOTHING, "dirty": True, "expedite": True},
        NextStep(Do.SAVE),
    ),
    "nothing is there, and all is saved": (
        {"found": Found.NOTHING, "saved_at": 0.0, "expedite": True},
        NextStep(Do.END),
    ),
    "the run has ended": ({"found": Found.RUN_END}, NextStep(Do.CLOSE)),
    "the run has ended, and not all is saved": ({"found": Found.RUN_END, "dirty": True}, NextStep(Do.SAVE)),
    "the sink knows that the run has ended": ({"found": Found.RUN_END, "closed": True}, NextStep(Do.END)),
}


@pytest.mark.parametrize(("known", "step"), NEXT.values(), ids=NEXT)
def test_next_step_follows_from_what_is_known(known: dict[str, Any], step: NextStep) -> None:
    assert next_step(situation(**known)) == step


class Round:
    """A round without a driver: each step changes what is known as the driver would."""

    def __init__(self, at: Situation, cuts: list[DeliveryBatch], ended: bool, answers: Any) -> None:
        self.at, self.cuts, self.ended, self.answers = at, cuts, ended, answers
        self.done: list[Do] = []

    def run(self) -> list[Do]:
        while (step := next_step(self.at)).do is not Do.END:
            self.done.append(step.do)
            assert len(self.done) < 200, "it never ends"
            self.at = self.at._replace(**self.change(step))
        return self.done

    def change(self, step: NextStep) -> dict[str, Any]:
        pending = self.at.pending
        match step.do:
            case Do.OPEN_SINK:
                return {"sink_open": True}
            case Do.OPEN_JOURNAL:
                return {"journal_open": True}
            case Do.GATHER if self.cuts:
                return {"pending": Pending.of(self.cuts.pop(0))}
            case Do.GATHER:
                return {"found": Found.RUN_END if self.ended else Found.NOTHING}
            case Do.STORE_MEDIA:
                assert pending is not None
                return {"pending": pending.store()}
            case Do.WRITE:
                assert pending is not None and pending.parts and self.at.sink_open
                no = next(self.answers)
                return {"pending": pending.take(None) if no is None else pending.refuse(no)[0]}
            case Do.WAIT:
                return {"now": self.at.now + step.wait_s}
            case Do.ADVANCE:
                return {"pending": None, "found": Found.BATCH, "dirty": True}
            case Do.SAVE:
                assert self.at.sink_open
                return {"dirty": False, "saved_at": self.at.now}
            case _:
                assert not self.at.dirty, "what is not saved would be lost with the sink"
                return {"closed": True, "sink_open": False}


ANSWERS = st.sampled_from([None, TooLarge("large"), Rejected("all"), Rejected("the first", [0])])


@given(
    opened=st.booleans(),
    at=st.builds(
        situation,
        stopping=st.booleans(),
        expedite=st.booleans(),
        dirty=st.booleans(),
        saved_at=st.sampled_from([NOW, 0.0]),
        rate_free_at=st.sampled_from([0.0, NOW + 2]),
        pending=st.sampled_from([None, WHOLE, HALF, ALL]),
    ),
    cuts=st.lists(st.builds(cut, st.integers(0, 5), st.integers(0, 3), media=st.booleans()), max_size=1),
    ended=st.booleans(),
    answers=st.lists(ANSWERS, max_size=20),
)
def test_every_round_ends_and_gives_one_batch_at_most(
    opened: bool, at: Situation, cuts: list[DeliveryBatch], ended: bool, answers: list[Any]
) -> None:
    begun = at.pending is not None and at.pending.taken > 0
    at = at._replace(sink_open=opened, journal_open=opened)
    found = Round(at, cuts, ended, itertools.chain(answers, itertools.repeat(None)))
    done = found.run()
    assert done.count(Do.ADVANCE) + done.count(Do.CLOSE) <= 1
    assert done.count(Do.SAVE) <= 1
    assert found.at.now <= NOW + 2, "the rate is waited for once"
    if at.stopping and not begun:
        assert Do.WRITE not in done
    if Do.WRITE in done and Do.STORE_MEDIA in done:
        assert done.index(Do.STORE_MEDIA) < done.index(Do.WRITE)


@pytest.mark.parametrize(
    ("known", "due"),
    [
        ({"dirty": True, "saved_at": NOW - CHECKPOINT_INTERVAL_S - 0.01}, True),
        ({"dirty": True, "saved_at": NOW - CHECKPOINT_INTERVAL_S}, False),
        ({"dirty": False, "saved_at": 0.0, "expedite": True}, False),
        ({"dirty": True, "expedite": True, "found": Found.NOTHING}, True),
        ({"dirty": True, "expedite": True, "found": Found.BATCH}, False),
    ],
)
def test_cursor_is_saved_once_a_second_and_at_once_for_who_waits(known: dict[str, Any], due: bool) -> None:
    assert save_is_due(situation(**known)) is due


@pytest.mark.parametrize(
    ("dirty", "due_in", "wait_s", "caught_up"),
    [
        (False, INF, LONGEST_RETRY_S, True),
        (True, INF, CHECKPOINT_INTERVAL_S, False),
        (False, 0.25, 0.25, False),
        (True, 0.25, 0.25, False),
        (True, 5.0, CHECKPOINT_INTERVAL_S, False),
        (False, -3.0, 0.0, False),
    ],
)
def test_idle_delivery_waits_until_something_is_due(dirty: bool, due_in: float, wait_s: float, caught_up: bool) -> None:
    assert idle_s(dirty=dirty, due_in=due_in) == wait_s
    assert is_caught_up(dirty=dirty, due_in=due_in) is caught_up


@given(
    st.lists(st.tuples(st.integers(1, 500), st.floats(0, 10)), min_size=1, max_size=50),
    st.floats(0.1, 1000),
)
def test_rate_is_never_exceeded_but_for_one_batch(given_: list[tuple[int, float]], records_s: float) -> None:
    rate, now, sent = Rate(records_s), NOW, 0
    for count, pause_s in given_:
        now = max(now + pause_s, rate.free_at)
        assert sent <= records_s * (now - NOW) * (1 + 1e-9) + 1e-6
        rate, sent = rate.after(count, now), sent + count


def test_without_a_rate_nothing_waits() -> None:
    assert Rate(None).after(10**6, NOW).free_at == 0.0


# What an answer of the sink leaves


class Model:
    """A sink that takes what is small enough and good: what it should have in the end is plain to see."""

    def __init__(self, most: int, bad: set[int], named: bool) -> None:
        self.most, self.bad, self.named = most, bad, named
        self.records: list[int] = []
        self.updates: list[int] = []

    def write(self, part: Batch) -> None:
        if len(part.records) + len(part.updates) > self.most:
            raise TooLarge(f"at most {self.most}")
        which = [index for index, record in enumerate(part.records) if record.number in self.bad]
        if which:
            raise Rejected("bad", which if self.named else None)
        self.records += [record.number for record in part.records]
        self.updates += [update.time_ns for update in part.updates]


@given(
    count=st.integers(0, 40),
    changes=st.integers(0, 6),
    most=st.integers(1, 12),
    bad=st.sets(st.integers(0, 39)),
    named=st.booleans(),
)
def test_each_record_is_taken_or_rejected_once_and_in_order(
    count: int, changes: int, most: int, bad: set[int], named: bool
) -> None:
    sink, pending = Model(most, bad, named), Pending.of(cut(count, changes))
    rejected: list[int] = []
    while pending.parts:
        try:
            sink.write(pending.parts[0])
        except (TooLarge, Rejected) as no:
            pending, lost = pending.refuse(no)
            rejected += [record.number for record in lost]
        else:
            pending = pending.take(None)
    assert rejected == [number for number in range(count) if number in bad]
    assert sink.records == [number for number in range(count) if number not in bad]
    assert sink.updates == list(range(changes))
    assert (pending.delivered, pending.rejected) == (len(sink.records), len(rejected))


SKIPPED = {
    "all are shown": (None, 4, {}),
    "some cannot be shown": ({"text": 1, "arrays": 2}, 1, {"text": 1, "arrays": 2}),
    "one more than were left out": ({"downsampled": 1}, 3, {"downsampled": 1}),
    "nonsense": (17, 4, {}),
    "a reason without a number": ({"text": "many", "arrays": 1}, 3, {"arrays": 1}),
}


@pytest.mark.parametrize(("answer", "delivered", "skipped"), SKIPPED.values(), ids=SKIPPED)
def test_sinks_answer_is_counted_and_never_repeats_a_part(
    answer: object, delivered: int, skipped: dict[str, int]
) -> None:
    found = WHOLE.take(answer)
    assert (found.parts, found.taken) == ((), 1)
    assert (found.delivered, found.skipped) == (delivered, skipped)


def test_cursor_moves_behind_a_batch_and_keeps_what_it_had() -> None:
    before = Cursor(
        position=Position(1, 64, 0), delivered=10, rejected=1, skipped={"text": 2}, next_number=3, retries=5
    )
    pending = Pending.of(cut(4, unreadable=2)).refuse(Rejected("no", [3]))[0].take({"text": 1})
    after = pending.move(before)
    assert after == msgspec.structs.replace(
        before,
        position=Position(1, 64, 4),
        ends={7: 4},
        delivered=12,
        rejected=2,
        skipped={"text": 3, "unreadable": 2},
        next_number=4,
    )
    assert before.delivered == 10, "it is a value"
    assert Pending.of(cut(0, 1)).take(None).move(after).next_number == 4


def test_sink_that_rejects_nobody_is_told_so() -> None:
    with pytest.raises(ValueError, match=r"rejects none of these records: \[9\]"):
        WHOLE.refuse(Rejected("no", [9]))


# When a batch is cut


class Sized(Backend, frozen=True, kw_only=True):
    batch_records = 3
    batch_bytes = 100
    batch_age_s = 5.0


def gathering(backend: Backend, *pieces: tuple[list[Record], int]) -> Gathering:
    made = Gathering(BatchLimits.of(backend), NOW)
    for piece, size in pieces:
        made.add(piece, size)
    return made


FULL = {
    "it is new": (Sized(), [], False),
    "there is room": (Sized(), [(records(2), 99)], False),
    "it has as many records as it may": (Sized(), [(records(2), 10), (records(1), 10)], True),
    "it has as many bytes as it may": (Sized(), [([], 100)], True),
    "its rate allows one a second": (Sized(max_records_s=0.5), [(records(1), 1)], True),
    "the stretch goes on": (Sized(downsample_interval_s=3.0), [(records(3), 10**6)], False),
    "the stretch is over": (Sized(downsample_interval_s=3.0), [(records(4), 1)], True),
    "the stretch is over in its second piece": (
        Sized(downsample_interval_s=3.0),
        [(records(2), 1), (records(4)[3:], 1)],
        True,
    ),
}


@pytest.mark.parametrize(("backend", "pieces", "full"), FULL.values(), ids=FULL)
def test_batch_is_full_by_count_by_bytes_or_by_its_stretch_of_time(
    backend: Backend, pieces: list[tuple[list[Record], int]], full: bool
) -> None:
    assert gathering(backend, *pieces).full is full


@pytest.mark.parametrize(
    ("why", "now", "ready"),
    [
        ({}, NOW, False),
        ({}, NOW + 4.9, False),
        ({}, NOW + 5.0, True),
        ({"cut_here": True}, NOW, True),
        ({"expedite": True}, NOW, True),
        ({"ended": True}, NOW, True),
    ],
)
def test_batch_that_is_not_full_waits_for_its_age_unless_there_is_a_reason(
    why: dict[str, bool], now: float, ready: bool
) -> None:
    reasons = {"cut_here": False, "expedite": False, "ended": False, **why}
    assert is_ready(gathering(Sized(), (records(1), 1)), now, **reasons) is ready


def test_piece_is_no_larger_than_what_is_left_nor_than_a_default_batch() -> None:
    class Huge(Sized, frozen=True, kw_only=True):
        batch_bytes = 1 << 30

    made = gathering(Sized(), (records(1), 60))
    assert (made.room_records, made.room_bytes) == (2, 40)
    assert gathering(Huge()).room_bytes == BATCH_BYTES


def test_downsampled_batch_counts_what_it_leaves_out() -> None:
    made = gathering(Sized(downsample_interval_s=100.0), (records(50), 1))
    made.unreadable = 2
    assert [record.number for record in made.batch().records] == [0, 49]
    assert made.skipped() == {"downsampled": 48, "unreadable": 2}


def test_backend_gets_the_updates_that_it_asks_for() -> None:
    class Asking(Backend, frozen=True, kw_only=True):
        milestones = True
        takes_labels = True

    assert wanted_updates(Backend()) == {CONFIG: "config", SUMMARY: "summary"}
    assert wanted_updates(Asking()) == {**wanted_updates(Backend()), LABELS: "labels", CHECKPOINT: "checkpoint"}


# What is done about a failure, and said


def test_sink_that_asks_for_the_whole_run_again_and_again_is_left_to_a_person() -> None:
    assert classify_resend(1) == (0.0, False)
    for failures in range(2, MOST_REPEATS):
        wait_s, paused = classify_resend(failures)
        assert 0 < wait_s <= retry_policy.FIRST_RETRY_S * 2 ** (failures - 1)
        assert not paused
    assert classify_resend(MOST_REPEATS).paused


MESSAGES = {
    "a new error": (Failures(1, None, 1), False, "Traceback", ("x: trying again\nTraceback", True)),
    "the tenth time": (
        Failures(10, None, MOST_REPEATS),
        True,
        None,
        ("x: it has failed 10 times the same way, and is seldom tried again until you fix it", True),
    ),
    "the eleventh time": (
        Failures(11, None, MOST_REPEATS + 1),
        True,
        None,
        ("x: waiting for you to fix that", False),
    ),
    "a network": (Failures(3), False, None, ("x: trying again", False)),
    "a key": (Failures(1), True, None, ("x: waiting for you to fix that", False)),
}


@pytest.mark.parametrize(("failures", "paused", "traceback", "message"), MESSAGES.values(), ids=MESSAGES)
def test_message_says_what_is_done_about_a_failure(
    failures: Failures, paused: bool, traceback: str | None, message: tuple[str, bool]
) -> None:
    assert failure_message("x", failures, RetryDecision(1.0, paused), traceback) == message
