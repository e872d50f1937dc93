"""Writers: which label the records of each ring have, as the frames that open and join a run say. Runs anywhere.

A START or JOIN frame is the first of its ring. A ring without one is that of a forked child, whose records are those of the process that opened the run.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.join import LABEL, Join, default_label
from asynctrack.journal.layout import NOTES_RING
from asynctrack.journal.manifest import UNREADABLE
from asynctrack.queue.layout import JOIN, START
from asynctrack.records.codec import decode_as


class _Opening(msgspec.Struct):
    """The part of a start frame that says who has opened the run."""

    environment: dict[str, Any] = {}


class Writers(msgspec.Struct, frozen=True, kw_only=True):
    """The labels of a run's rings, up to a place in its journal.

    Attributes:
        labels: of each ring that has opened or joined the run.
        owner: the label of the process that has opened the run last; None where that is not known.
        primary: the label of the process whose records stand for the run: rank 0 of those that have joined it, else the owner. None until rank 0 has.
        several: whether the run has had another writer, or was opened for several; until then no record has a label.
    """

    labels: dict[int, str] = {}
    owner: str | None = None
    primary: str | None = None
    several: bool = False

    def name_of(self, ring: int) -> str | None:
        """Return the label of a ring; None where it is not known."""
        return self.labels.get(ring, self.owner)

    def label_of(self, ring: int) -> str | None:
        """Return the label of a ring's records; None where the run has one writer alone."""
        return self.name_of(ring) if self.several else None

    def is_primary(self, ring: int) -> bool:
        """Return whether the records of a ring are those of the process that stands for the run."""
        return not self.several or self.name_of(ring) == self.primary

    def learn(self, batch: FrameBatch) -> Writers:
        """Return what is known behind the first frame of a batch."""
        ring = batch.header.ring
        if batch.header.start or ring == NOTES_RING or ring in self.labels:
            return self
        first = next(batch.frames(), None)
        if first is None or first.kind not in (START, JOIN):
            return self
        with contextlib.suppress(*UNREADABLE):
            return self._join(ring, first) if first.kind == JOIN else self._start(ring, first)
        return self

    def _join(self, ring: int, frame: Frame) -> Writers:
        join = decode_as(frame.payload, Join)
        primary = join.writer if self.primary is None and join.rank == 0 else self.primary
        return msgspec.structs.replace(self, labels={**self.labels, ring: join.writer}, primary=primary, several=True)

    def _start(self, ring: int, frame: Frame) -> Writers:
        said = decode_as(frame.payload, _Opening).environment
        given = str(said.get("writer"))
        is_given = "writer" in said and LABEL.fullmatch(given) is not None
        label = given if is_given else default_label(said.get("host", ""), said.get("pid", ""))
        several = self.several or is_given
        # Whichever of several comes first opens a run that they join: rank 0 is then still to come.
        primary = None if said.get("joins") and said.get("rank") not in (None, 0) else label
        return Writers(labels={**self.labels, ring: label}, owner=label, primary=primary, several=several)
