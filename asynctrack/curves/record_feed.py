"""Record feed: hands the records of batches to a scan, those that the core cannot read too. Runs anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asynctrack._system.native import is_native
from asynctrack.curves.media_counts import MediaCounts
from asynctrack.curves.native_parts import new_scan
from asynctrack.curves.python_buckets import PythonScan
from asynctrack.journal.frames import Frame, FrameBatch, walk
from asynctrack.journal.manifest import UNREADABLE, unreadable
from asynctrack.journal.reader import Damage
from asynctrack.queue.layout import RECORD, START, frame_size
from asynctrack.records.codec import Decoder, Media, Record, flatten, string_keys
from asynctrack.records.column_types import as_float

if TYPE_CHECKING or is_native:
    from asynctrack._native import ODD, WIDE, Scan

# What is read at once: about 5 ms, in which no other thread has the interpreter lock.
_PIECE_BYTES: Final = 4 << 20
_INT64: Final = 1 << 63

Stretches = Iterable[tuple[int, int]]


class RecordFeed:
    """Hands records to a scan.

    Args:
        run: the run's directory.
        native: False has Python read all records.

    Attributes:
        scan: gets them.
        media: those of the records that were read, without what is cut.
        is_rounded: whether a step, a time or an integer was beyond 64 bits.
        decoded: how many records Python has decoded: those with media are among them.
    """

    def __init__(self, run: Path, *, native: bool = is_native) -> None:
        self.scan: Scan | PythonScan = new_scan(native=native)
        self.media: MediaCounts = MediaCounts()
        self.is_rounded: bool = False
        self.decoded: int = 0
        self._run = run
        self._decode = Decoder(run).record
        self._cuts: Mapping[str, int] = {}

    def begin_session(self, cuts: Mapping[str, int]) -> None:
        """Begin a session, with the steps from which on a key is left out."""
        self._cuts = cuts
        self.scan.begin_session(dict(cuts), True)

    def read(self, batch: FrameBatch, stretches: Stretches, report: Callable[[Damage], None]) -> Iterator[int]:
        """Read some stretches of a batch, and yield the byte behind each start of a session, when all before it is read.

        Args:
            batch: of the journal.
            stretches: the first byte of each, and the byte behind it, both between frames.
            report: is told of records that cannot be decoded.
        """
        for start, end in stretches:
            yield from (
                self._read_in_python(batch, start, end, report)
                if isinstance(self.scan, PythonScan)
                else self._read_natively(self.scan, batch, start, end, report)
            )

    def _read_natively(
        self, scan: Scan, batch: FrameBatch, at: int, end: int, report: Callable[[Damage], None]
    ) -> Iterator[int]:
        while at < end:
            found = scan.feed(batch.data, at, at + _PIECE_BYTES, end)
            if isinstance(found, int):
                at = found
                continue
            reason, at, kind, number, lost, begin, behind = found
            if reason in (ODD, WIDE):
                self._put(batch, Frame(at, kind, number, lost, batch.data[begin:behind]), report)
            elif kind == START:
                yield at

    def _read_in_python(
        self, batch: FrameBatch, start: int, end: int, report: Callable[[Damage], None]
    ) -> Iterator[int]:
        for frame in walk(batch.data, start, end):
            if frame.kind == RECORD:
                self._put(batch, frame, report)
            elif frame.kind == START:
                yield frame.end

    def _put(self, batch: FrameBatch, frame: Frame, report: Callable[[Damage], None]) -> None:
        """Decode a record, and put it."""
        self.decoded += 1
        try:
            record = self._decode(frame.payload, frame.number, batch.header.ring)
        except UNREADABLE:
            report(unreadable(self._run, batch, frame))
            return
        values = list(flatten(string_keys(record.data)))
        if any(self._is_cut(record, name) for name, _ in values):  # as `history.without`
            values = list(dict(values).items())
        self.media.add(pair for pair in values if isinstance(pair[1], Media) and not self._is_cut(record, pair[0]))
        pairs = numbers_of(values)
        if isinstance(self.scan, PythonScan):
            self.scan.number, self.scan.begins = frame.number, frame.end - frame_size(len(frame.payload))
        step, time_ns = within_64_bits(record.step), within_64_bits(record.time_ns)
        self.is_rounded |= (step, time_ns) != (record.step, record.time_ns)
        self.is_rounded |= any(
            type(value) is int and not isinstance(pair[1], int) for (_, value), pair in zip(values, pairs, strict=True)
        )
        self.scan.put(step, time_ns, pairs)

    def _is_cut(self, record: Record, name: str) -> bool:
        return name in self._cuts and record.step >= self._cuts[name]


def numbers_of(values: Iterable[tuple[str, Any]]) -> list[tuple[str, float | None]]:
    """Return the values of a record as a scan takes them, None for what is no number."""
    return [(name, _plain(value)) for name, value in values]


def _plain(value: Any) -> float | None:
    """Return a number that 64 bits hold, infinite where a float is too small; None for all else."""
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else as_float(value)
    return value if isinstance(value, float) else None


def within_64_bits(value: int) -> int:
    """Return the integer of 64 bits that is nearest."""
    return min(max(value, -_INT64), _INT64 - 1)
