"""Gathering: a batch in the making, and when it is to be given. Values and rules only: it reads no file and no clock."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, cast

from asynctrack.backends.base import BATCH_BYTES, Backend, Batch, Update
from asynctrack.backends.files.line_records import LineRecords
from asynctrack.delivery.downsample import Downsampler
from asynctrack.journal.layout import Position
from asynctrack.journal.open_means import OpenMeans
from asynctrack.journal.writers import Writers
from asynctrack.queue.layout import CHECKPOINT, CONFIG, LABELS, SUMMARY
from asynctrack.records.codec import Record

# The updates that are made of a frame alone.
UpdateKind = Literal["config", "summary", "labels", "checkpoint"]

# Records as they were taken: those of a delivery are all lists, or all are not.
Records = list[Record] | LineRecords

NEVER_S: Final = float("inf")


class DeliveryBatch(NamedTuple):
    """A batch as it was cut, with the place in the journal behind it.

    Attributes:
        batch: the records and updates.
        skipped: records that no sink gets, by reason: "downsampled" were left out for a display's sake, "unreadable" cannot be decoded;
            further ones are those of `writer_views`.
        position: of the journal behind them.
        ends: for each ring, up to where they reach.
        media: whether some of the batch are to be stored.
        writers: the labels of the rings, as they are known there.
        means: of the run's writers that are open there; None where the backend gets none.
    """

    batch: Batch
    skipped: dict[str, int]
    position: Position
    ends: dict[int, int]
    media: bool
    writers: Writers = Writers()
    means: OpenMeans | None = None


class BatchLimits(NamedTuple):
    """When a batch is cut, as its backend says.

    Attributes:
        records: at so many,
        bytes: at about so many as they were logged,
        age_s: and when its first record has waited so many seconds.
        stretch_ns: of time, which is downsampled; it replaces `records` and `bytes`. None where every record is given.
    """

    records: int
    bytes: int
    age_s: float
    stretch_ns: int | None

    @classmethod
    def of(cls, backend: Backend) -> BatchLimits:
        """Take them from a backend's settings. A batch is at most what its rate allows for a second."""
        stretch_s = backend.downsample_interval_s
        return cls(
            records=max(1, min(backend.batch_records, int(backend.max_records_s or backend.batch_records))),
            bytes=max(1, backend.batch_bytes),
            age_s=max(backend.batch_age_s, stretch_s or 0.0),
            stretch_ns=None if stretch_s is None else int(stretch_s * 1e9),
        )


class Gathering:
    """A batch in the making.

    Args:
        limits: of the batch.
        began_at: monotonic seconds.
    """

    def __init__(self, limits: BatchLimits, began_at: float) -> None:
        self.updates: list[Update] = []
        self.unreadable = 0
        self._left_out: dict[str, int] = {}
        self._limits = limits
        self._began_at = began_at
        self._records: Records | None = None
        self._downsampler = None if limits.stretch_ns is None else Downsampler()
        self._bytes = 0
        self._first_ns: int | None = None
        self._last_ns = 0

    @property
    def room_records(self) -> int:
        """Return how many more records it has room for."""
        return self._limits.records - len(self._records or ())

    @property
    def room_bytes(self) -> int:
        """Return the most bytes of frames to take next: a piece is never more than a default batch."""
        return min(self._limits.bytes - self._bytes, BATCH_BYTES)

    @property
    def full(self) -> bool:
        """Return True if nothing more belongs in it: it has reached its size, or its stretch of time is over."""
        if self._downsampler is None:
            return self._bytes >= self._limits.bytes or self.room_records <= 0
        return self._first_ns is not None and self.ends_stretch(self._first_ns, self._last_ns)

    def ends_stretch(self, first_ns: int, time_ns: int) -> bool:
        """Return True if a record of this time is the last of the stretch that begins with that of `first_ns`."""
        if self._limits.stretch_ns is None:
            return False
        return time_ns - (first_ns if self._first_ns is None else self._first_ns) >= self._limits.stretch_ns

    def add(self, records: Records, size: int) -> None:
        """Take the records of a piece of the journal that has `size` bytes."""
        self._bytes += size
        if not records:
            return
        if self._downsampler is not None:
            assert isinstance(records, list)
            self._first_ns = records[0].time_ns if self._first_ns is None else self._first_ns
            self._last_ns = records[-1].time_ns
            self._downsampler.add(records)
        elif self._records is None:
            self._records = records
        else:
            self._records.extend(records)  # type: ignore[arg-type]  # both are lists, or both are not

    def leave_out(self, counts: dict[str, int]) -> None:
        """Count records that the backend does not get for the sake of its setting `writers`, by reason."""
        for reason, count in counts.items():
            self._left_out[reason] = self._left_out.get(reason, 0) + count

    def due_in(self, now: float) -> float:
        """Compute the seconds until it has waited for long enough; 0 or less where it has."""
        return self._began_at + self._limits.age_s - now

    def batch(self) -> Batch:
        """Make the batch of what was taken."""
        if self._downsampler is not None:
            return Batch(self._downsampler.kept(), self.updates)
        # `LineRecords` are no list, and only `JSONLines` gets them.
        return Batch(cast("list[Record]", [] if self._records is None else self._records), self.updates)

    def skipped(self) -> dict[str, int]:
        """Count the records that are not in the batch, by reason."""
        downsampled = 0 if self._downsampler is None else len(self._downsampler) - len(self._downsampler.kept())
        counts = {"downsampled": downsampled, "unreadable": self.unreadable, **self._left_out}
        return {reason: count for reason, count in counts.items() if count}


def is_ready(gathering: Gathering, now: float, *, cut_here: bool, expedite: bool, ended: bool) -> bool:
    """Decide whether a batch is to be given as it is.

    Args:
        gathering: the batch in the making.
        now: monotonic seconds.
        cut_here: whether what comes next in the journal begins another batch.
        expedite: whether somebody waits: then it need be neither full nor old.
        ended: whether the run has ended with it.
    """
    return gathering.full or cut_here or expedite or ended or gathering.due_in(now) <= 0


def wanted_updates(backend: Backend) -> dict[int, UpdateKind]:
    """List the kinds of frames that a backend gets as updates, with the names of these updates; starts are another matter."""
    wanted: dict[int, UpdateKind] = {CONFIG: "config", SUMMARY: "summary"}
    if backend.takes_labels:
        wanted[LABELS] = "labels"
    if backend.milestones:
        wanted[CHECKPOINT] = "checkpoint"
    return wanted
