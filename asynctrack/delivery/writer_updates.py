"""Writer updates: which processes join a run of several writers, and how each ends, for backends that ask for it. Runs with the driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from asynctrack.backends.base import Update
from asynctrack.journal import writer_list
from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.join import Join
from asynctrack.journal.manifest import Manifest, read_note, start_time_ns
from asynctrack.journal.writer_list import WriterList, WriterStats
from asynctrack.journal.writers import Writers
from asynctrack.queue.layout import FAILURE, JOIN, NOTE, START
from asynctrack.reading.writer_counts import WriterCounts
from asynctrack.records.codec import decode_as, decode_update


class WriterUpdates:
    """Makes the updates of what comes next in a journal.

    Args:
        run: the run's directory.
        known: the labels of the rings, where it begins.
    """

    def __init__(self, run: Path, known: Writers) -> None:
        self._writers: WriterList = [
            WriterStats(writer=label, ring=f"{ring:016x}", is_owner=label == known.owner)
            for ring, label in known.labels.items()
        ]
        self._counts = WriterCounts(run)

    def of(self, frame: Frame, ring: int) -> Iterator[Update]:
        """Yield the update that a frame stands for, if it stands for one.

        Raises:
            ValueError: the frame cannot be read.
        """
        if frame.kind == JOIN:
            join = decode_as(frame.payload, Join)
            self._writers = writer_list.join_run(self._writers, ring, join)
            if not join.forked:
                who = {"writer": join.writer, "rank": join.rank, "host": join.host, "pid": join.pid}
                yield Update("join", join.time_ns, who)
        elif frame.kind == START:
            start = decode_as(frame.payload, Manifest)
            self._writers = writer_list.open_run(self._writers, ring, start.environment, start_time_ns(start))
        elif frame.kind == FAILURE:
            error = decode_update(frame.payload)[1].get("error")
            self._writers = writer_list.change(self._writers, f"{ring:016x}", error=str(error))
        elif frame.kind == NOTE and (note := read_note(frame))["note"] == "ring_ended":
            yield from self._end(note)

    def count(self, batch: FrameBatch) -> None:
        """Take note of a batch that has been read."""
        self._counts.take(batch)

    def close(self) -> None:
        """Close the journal."""
        self._counts.close()

    def _end(self, note: dict[str, Any]) -> Iterator[Update]:
        ring = f"{int(note['ring'], 16):016x}"
        before = writer_list.find(self._writers, ring)
        self._writers = writer_list.end_ring(self._writers, note)
        now = writer_list.find(self._writers, ring)
        several = len(writer_list.last_by_label(self._writers)) > 1
        if now is None or not several or (before is not None and before.status == now.status):
            return
        last_step = self._counts.last_step(int(ring, 16))
        said = {"writer": now.writer, "status": now.status, "last_step": last_step, "error": now.error}
        yield Update("leave", note.get("time_ns", 0), msgspec.to_builtins(said))
