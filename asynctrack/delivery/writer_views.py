"""Writer views: what a backend gets of each writer's records, as its setting `writers` says. Values and rules only: it reads no file and no clock."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from asynctrack.backends.base import ActionRequired, Backend, instead_of_means
from asynctrack.delivery.means import Means
from asynctrack.journal.frames import Frame
from asynctrack.journal.join import Join
from asynctrack.journal.layout import Position
from asynctrack.journal.manifest import UNREADABLE, read_note
from asynctrack.journal.open_means import OpenMeans
from asynctrack.journal.writers import Writers
from asynctrack.queue.layout import JOIN, NOTE, START
from asynctrack.records.codec import Record, decode_as

OTHER_WRITERS: Final = "of other writers"

_RANK: Final = re.compile(r"rank\d+")
_NOT_EXPECTED: Final = (
    "writers='mean' needs the number of processes that write, to know when a step is complete: give expected= to asynctrack.init() or set "
    "WORLD_SIZE, as torchrun does. This run has neither: deliver it with {choices}, for example by "
    "`asynctrack sync RUN --to KIND writers=owner`"
)


class Piece(NamedTuple):
    """Some of a journal's batch, whose records are all of one ring.

    Attributes:
        at: the batch's place.
        ring: of the records.
        records: in their order.
        others: the other frames; a START or JOIN lies before the records.
        writers: the labels, as they are known behind it.
    """

    at: Position
    ring: int
    records: list[Record]
    others: Sequence[Frame]
    writers: Writers


class WriterView(Protocol):
    """Turns the records of a run into those that a backend gets."""

    def take(self, piece: Piece) -> tuple[list[Record], dict[str, int]]:
        """Take a piece; returns the records that are to be delivered now, and how many are not, by reason."""
        ...

    def state(self) -> OpenMeans | None:
        """Return what the cursor is to keep."""
        ...


class _OwnerOnly:
    """Leaves out the records of all but the primary writer. These need no label: there are no others."""

    def take(self, piece: Piece) -> tuple[list[Record], dict[str, int]]:
        if piece.records and not piece.writers.is_primary(piece.ring):
            return [], {OTHER_WRITERS: len(piece.records)}
        return without_labels(piece.records), {}

    def state(self) -> None:
        return None


class _Prefixed:
    """Puts the writer in front of each name: `rank3/loss`."""

    def take(self, piece: Piece) -> tuple[list[Record], dict[str, int]]:
        label = piece.writers.label_of(piece.ring)
        if label is None:
            return piece.records, {}
        return [
            msgspec.structs.replace(
                record, data={f"{label}/{key}": value for key, value in record.data.items()}, writer=None
            )
            for record in piece.records
        ], {}

    def state(self) -> None:
        return None


class _Split:
    """Marks the primary writer's records as those of the run itself, as they are where it is the only one."""

    def take(self, piece: Piece) -> tuple[list[Record], dict[str, int]]:
        if not piece.writers.several or not piece.writers.is_primary(piece.ring):
            return piece.records, {}
        return without_labels(piece.records), {}

    def state(self) -> None:
        return None


class MeanView:
    """Gives the means over the writers.

    Args:
        state: where it goes on.
        backend: that gets them.
    """

    def __init__(self, state: OpenMeans | None, backend: Backend) -> None:
        self._backend = backend
        self.means = Means(state or OpenMeans())

    def take(self, piece: Piece) -> tuple[list[Record], dict[str, int]]:
        """Take a piece; returns the rows of the steps that it closes.

        Raises:
            ActionRequired: nobody has said how many writers there are.
        """
        means = self.means
        means.writers = piece.writers
        for frame in piece.others:
            with contextlib.suppress(*UNREADABLE):
                self._learn(piece.ring, frame)
        if not piece.writers.several:
            return piece.records, {}
        if piece.records:
            if means.expected is None:
                raise ActionRequired(_NOT_EXPECTED.format(choices=instead_of_means(self._backend)))
            means.add(piece.ring, piece.records, piece.at)
            means.close()
        rows, skipped = means.rows, means.skipped
        means.rows, means.skipped = [], {}
        return rows, skipped

    def state(self) -> OpenMeans:
        return self.means.state()

    def _learn(self, ring: int, frame: Frame) -> None:
        """Take note of who writes, and who has ended."""
        means = self.means
        if frame.kind == START:
            said = decode_as(frame.payload, _Started).environment
            writer = means.writers.name_of(ring) or ""
            ranked = said.get("rank") is not None or _RANK.fullmatch(writer) is not None
            means.start(ring, writer, _count(said.get("expected")), ranked=ranked)
        elif frame.kind == JOIN:
            join = decode_as(frame.payload, Join)
            means.join(ring, join.writer, join.expected, ranked=join.rank is not None)
        elif frame.kind == NOTE:
            note = read_note(frame)
            if note["note"] == "ring_ended":
                means.end(int(note["ring"], 16))
            elif note["note"] == "run_ended":
                means.close_all()


class _Started(msgspec.Struct):
    """The part of a start frame that says how many writers there are."""

    environment: dict[str, Any] = {}


def without_labels(records: list[Record]) -> list[Record]:
    """Return records without the label of their writer. All are of one."""
    if not records or records[0].writer is None:
        return records
    return [Record(each.number, each.step, each.time_ns, each.data, each.ring) for each in records]


def view_of(backend: Backend, state: OpenMeans | None) -> WriterView | None:
    """Return what the setting `writers` of a backend asks for; None where it gets the records as they are."""
    if backend.writers == "owner":
        return _OwnerOnly()
    if backend.writers == "prefix":
        return _Prefixed()
    if backend.writers == "split":
        return _Split()
    return MeanView(state, backend) if backend.writers == "mean" else None


def _count(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None
