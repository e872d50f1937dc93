"""A ring against a list: what was put and not refused comes out, whole, once and in order, in whatever portions."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asynctrack._system.native import is_native
from asynctrack.journal.frames import walk
from asynctrack.queue.layout import CONFIG, END, ENDS, HEAD, KIND_SHIFT, RECORD, TAIL, frame_size
from asynctrack.queue.producer import PythonProducer, create
from asynctrack.queue.ring import Ring, record_offset

CAPACITY = 1024
FIRST = 3


class RingModel(RuleBasedStateMachine):
    """The model is `expected`: kind, number, drops before and payload of every frame that is still in the ring."""

    make = staticmethod(create)

    def __init__(self) -> None:
        super().__init__()
        self.expected: list[tuple[int, int, int, bytes]] = []
        self.number, self.lost, self.records = FIRST, 0, 0
        self.letters = itertools.cycle(b"abcdefghijklmnopqrstuvwxyz")

    @initialize()
    def create(self) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="asynctrack-test-")
        path = str(Path(self.directory.name) / "a.ring")
        self.producer = self.make(Ring.create(path, CAPACITY, {"run": "/runs/a"}, first=FIRST), bool)
        self.ring = self.producer.ring

    def teardown(self) -> None:
        self.producer.close("left")
        self.ring.close()
        self.directory.cleanup()

    @rule(size=st.integers(0, CAPACITY // 2 - 32) | st.integers(0, 40), kind=st.sampled_from([RECORD, RECORD, CONFIG]))
    def put(self, size: int, kind: int) -> None:
        payload = bytes([next(self.letters)]) * size
        placed = self.producer.put(payload, kind << KIND_SHIFT, int(kind == RECORD))
        if placed:
            self.expected.append((kind, self.number, self.lost, payload))
            self.number += kind == RECORD
        else:  # the room lies at both ends of the ring, and a frame takes one of them
            closed = not self.producer.is_open
            assert closed or CAPACITY - self.ring.used() < 2 * frame_size(size) + 16

    @rule(size=st.integers(CAPACITY - 15, 3 * CAPACITY))
    def put_more_than_the_ring_holds(self, size: int) -> None:
        assert not self.producer.put(bytes(size))

    @rule(reason=st.sampled_from(["full", "oversize"]), count=st.integers(1, 5))
    def drop(self, reason: str, count: int) -> None:
        self.producer.drop(reason, count)
        self.number += count
        self.lost += count

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        """Like the worker, which takes all there was at one look: up to some frame's end."""
        words = self.ring.words
        frames = self.ring.copy(words[TAIL], words[HEAD])
        assert record_offset(frames, FIRST) == self.records
        found = list(walk(memoryview(frames), 0, len(frames)))
        count = data.draw(st.integers(1, len(found)), label="frames")
        taken, self.expected = self.expected[:count], self.expected[count:]
        assert [(f.kind, f.number, f.lost, bytes(f.payload)) for f in found[:count]] == taken
        words[TAIL] += found[count - 1].end
        self.records += sum(kind == RECORD for kind, *_ in taken)

    @rule(end=st.sampled_from(ENDS[1:]))
    def close(self, end: str) -> None:
        self.producer.close(end)
        assert not self.producer.put(b"late")
        assert self.ring.words[END] != ENDS.index("open")

    @invariant()
    def the_counts_agree(self) -> None:
        assert self.ring.used() <= CAPACITY
        assert self.ring.queued(self.ring.words[TAIL]) == sum(kind == RECORD for kind, *_ in self.expected)
        assert sum(self.ring.dropped().values()) == self.lost
        assert self.producer.number == self.number


class PythonRingModel(RingModel):
    make = staticmethod(PythonProducer)


@pytest.mark.system
class TestRing(RingModel.TestCase):
    settings = settings(
        max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


@pytest.mark.skipif(not is_native, reason="the other test has done it")
@pytest.mark.system
class TestRingInPython(PythonRingModel.TestCase):
    settings = TestRing.settings


@pytest.mark.slow
@pytest.mark.timeout(300)
class TestRingLonger(RingModel.TestCase):
    settings = settings(TestRing.settings, max_examples=1000, stateful_step_count=100)
