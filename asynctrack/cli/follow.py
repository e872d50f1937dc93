"""Follow: yields the batches of a run's journal as they come, until the run has ended or has neither a process nor a worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from asynctrack.client.run_state import State, activity_of, ended_as, state_of
from asynctrack.errors import NotARun
from asynctrack.journal.backwards import backwards
from asynctrack.journal.frames import FrameBatch
from asynctrack.journal.layout import NOTES_RING, Position
from asynctrack.journal.manifest import read_note
from asynctrack.journal.reader import Damage, Reader
from asynctrack.queue.layout import NOTE, START
from asynctrack.reading import catalog
from asynctrack.reading.damage import manifest_of

# Between two checks for growth of the journal; each takes 20 us.
_POLL_S: Final = 0.05
# Between two checks for a process that could make it grow.
_PRESENCE_S: Final = 1.0


class Follower:
    """Reads a run's journal from a position on, also across segments and sessions.

    Attributes:
        status: of the run, as far as it is read.

    Raises:
        UnsupportedVersion: a newer asynctrack wrote the run.
    """

    def __init__(self, run: Path, position: Position | None = None, ends: dict[int, int] | None = None) -> None:
        manifest_of(run)
        self._run = run
        self._reader = Reader(run / "journal", position or Position(), ends)
        self._present_until = 0.0
        self.status: State = "running"
        if position is not None:
            self.status = ended_as(run) or "running"

    @classmethod
    def at_end(cls, run: Path) -> Follower:
        """Follow a run from the present end of its journal."""
        newest = next(backwards(run / "journal", notes=True), None)
        return cls(run) if newest is None else cls(run, newest.after, {newest.header.ring: newest.header.end})

    @property
    def damage(self) -> list[Damage]:
        """Return the damage that was skipped so far."""
        return self._reader.damage

    def batches(self) -> Iterator[FrameBatch | None]:
        """Yield each batch, and None each time that all batches so far have been yielded; return when the run has ended."""
        left_as: State | None = None
        suspected: State | None = None
        while True:
            for batch in self._reader:
                left_as = None
                self._learn(batch)
                yield batch
            yield None
            if self.status == "running" and left_as is not None:
                self.status = left_as
            if self.status != "running":
                return
            if time.monotonic() > self._present_until:
                self._present_until = time.monotonic() + _PRESENCE_S
                state = self._state()
                gone = state not in ("running", "elsewhere")
                # A worker that moves its queues cannot be seen for a moment, so it is looked for twice. Either way the journal
                # is read once more: its last batches may have come meanwhile.
                left_as = state if gone and suspected == state else None
                suspected = state if gone else None
                if gone:
                    self._present_until = 0.0
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Close the journal."""
        self._reader.close()

    def _learn(self, batch: FrameBatch) -> None:
        if batch.header.ring != NOTES_RING and batch.header.start:
            return  # a session starts at the start of its ring
        for frame in batch.frames(skip_records=True):
            if frame.kind == START:
                self.status = "running"
            elif frame.kind == NOTE and (note := read_note(frame))["note"] in ("run_ended", "run_reopened"):
                self.status = note["status"] if note["note"] == "run_ended" else "running"

    def _state(self) -> State:
        try:
            manifest = catalog.load(self._run)
        except NotARun:  # the journal has lost its beginning; its end may still tell
            return ended_as(self._run) or ("running" if activity_of(self._run).is_active else "lost")
        if manifest.position < self._reader.position and activity_of(self._run).is_active:
            return "running"  # the end that it may tell of is that of an earlier session: the journal goes on behind it
        return state_of(self._run, manifest)
