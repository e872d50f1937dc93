"""A journal against a list, through failing disks, kills and power cuts: what was synced is there, none made up."""

from __future__ import annotations

import errno
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from asynctrack.journal import segment, writer
from asynctrack.journal.reader import Reader
from asynctrack.journal.writer import Writer
from asynctrack.queue.layout import frame_size

PLENTY = 1 << 20  # bytes that no example fills


class Appended(NamedTuple):
    """One batch of one frame."""

    ring: int
    end: int
    payload: bytes


class JournalModel(RuleBasedStateMachine):
    """The model: `appended` is what the journal holds, `promised` up to where each ring was called safe.

    `durable` is what the disk itself holds for sure: how much of each file was there at its last fsync.
    """

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory(prefix="asynctrack-test-")
        self.directory = Path(self.temporary.name)
        self.appended: list[Appended] = []
        self.promised: Counter[int] = Counter()
        self.durable: dict[str, int] = {}
        self.number = 0
        self.torn_apart = False
        self.fsyncs_that_fail, self.room = 0, 2 * PLENTY
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(os, "fdatasync", self.fdatasync)
        self.patch.setattr(segment, "_write_all", self.write_all)
        self.patch.setattr(writer, "MAX_UNSYNCED_BYTES", 2000)
        self.open()

    def teardown(self) -> None:
        self.close_files()
        self.patch.undo()
        self.temporary.cleanup()

    def open(self) -> None:
        self.journal = Writer(self.directory, segment_bytes=400)
        self.durable = {path: size for path, size in self.durable.items() if os.path.exists(path)}
        assert {ring: self.end(ring) for ring in self.journal.ends} == self.journal.ends
        self.live, self.seen = Reader(self.directory), 0

    def close_files(self) -> None:
        """What the end of the process does to its files."""
        self.live.close()
        self.journal._segments.close()

    def end(self, ring: int) -> int:
        return max((batch.end for batch in self.appended if batch.ring == ring), default=0)

    def fdatasync(self, fd: int) -> None:
        if self.fsyncs_that_fail:
            self.fsyncs_that_fail -= 1
            raise OSError(errno.EIO, "injected")
        self.durable[os.readlink(f"/proc/self/fd/{fd}")] = os.fstat(fd).st_size

    def write_all(self, fd: int, data: bytes) -> None:
        part = data[: self.room]
        self.room -= len(part)
        os.write(fd, part)
        if len(part) < len(data):
            raise OSError(errno.ENOSPC, "injected")

    def trouble(self) -> bool:
        """Whether the disk fails, is soon full, or has failed with something not yet written again."""
        return bool(self.fsyncs_that_fail) or self.room < PLENTY or self.journal._segments.is_suspect

    def read(self, reader: Reader, known: int = 0) -> None:
        """What the reader finds is what was appended, and more of it than before."""
        found = [
            Appended(batch.header.ring, batch.header.end, bytes(frame.payload))
            for batch in reader
            for frame in batch.frames()
        ]
        assert found == self.appended[known:]
        assert self.torn_apart or reader.damage == []

    @rule(ring=st.integers(1, 2), size=st.integers(1, 500) | st.integers(1, 60))
    def append(self, ring: int, size: int) -> None:
        self.number += 1
        payload = (b"%d:" % self.number * size)[:size]
        header = len(payload).to_bytes(8, "little") + self.number.to_bytes(8, "little")
        frame = (header + payload).ljust(frame_size(len(payload)), b"\0")
        batch = Appended(ring, self.end(ring) + len(frame), payload)
        trouble = self.trouble()
        try:
            self.journal.append(ring, self.end(ring), batch.end, self.number, frame)
        except OSError:
            assert trouble
        else:
            self.appended.append(batch)

    @rule()
    def sync(self) -> None:
        trouble = self.trouble()
        if self.journal.sync():
            assert all(self.journal.synced.get(ring, 0) == self.end(ring) for ring in self.journal.ends)
        else:
            assert trouble

    @rule(times=st.integers(0, 3))
    def let_fsync_fail(self, times: int) -> None:
        self.fsyncs_that_fail = times

    @rule(room=st.integers(0, 500) | st.just(2 * PLENTY))
    def leave_room_on_the_disk(self, room: int) -> None:
        self.room = room

    @rule()
    def read_from_the_start(self) -> None:
        reader = Reader(self.directory)
        self.read(reader)
        reader.close()

    @rule()
    def read_on(self) -> None:
        self.read(self.live, self.seen)
        self.seen = len(self.appended)

    @rule()
    def restart(self) -> None:
        self.live.close()
        self.journal.close()
        self.keep_promises()
        self.open()

    @rule()
    def kill(self) -> None:
        self.close_files()
        self.open()

    @rule(data=st.data())
    def cut_the_power(self, data: st.DataObject) -> None:
        """Each file keeps what was synced, and any part of the rest."""
        self.close_files()
        for path in sorted(self.directory.iterdir()):
            size = path.stat().st_size
            kept = data.draw(st.integers(min(self.durable.get(str(path), 0), size), size), label=path.name)
            os.truncate(path, kept)
            self.durable[str(path)] = kept
        self.keep_what_is_left()
        self.open()

    def keep_what_is_left(self) -> None:
        reader, before = Reader(self.directory), self.appended
        left = [(batch.header.ring, batch.header.end) for batch in reader]
        reader.close()
        self.appended = [batch for batch in before if batch[:2] in left]
        assert [batch[:2] for batch in self.appended] == left
        assert [
            batch for batch in before if batch.end <= self.promised[batch.ring] and batch not in self.appended
        ] == []
        # A cut between two batches of a segment leaves a trace only in a later batch of the same ring: no segment says how long the one before it was.
        lost = [batch for batch in before if batch not in self.appended]
        if any(batch.ring == other.ring and batch.end < other.end for batch in lost for other in self.appended):
            assert reader.damage
        self.torn_apart |= bool(reader.damage)

    @invariant()
    def keep_promises(self) -> None:
        for ring, end in self.journal.synced.items():
            self.promised[ring] = max(self.promised[ring], end)
            assert end <= self.end(ring)


@pytest.mark.system
class TestJournal(JournalModel.TestCase):
    settings = settings(
        max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
class TestJournalLonger(JournalModel.TestCase):
    settings = settings(TestJournal.settings, max_examples=1500, stateful_step_count=60)
