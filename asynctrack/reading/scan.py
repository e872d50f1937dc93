"""Scan: the columns of a run's journal in one pass, by the native core. Runs anywhere.

The core reads the bytes of a record whose values are numbers, texts and truths. It hands over any other, which is decoded here as everywhere, and
put back in its place. Where it cannot hold a run, steps beyond 63 bits for one, `scan` returns None, and the columns are made of the records.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from asynctrack._system.native import is_native
from asynctrack.journal.frames import Frame, FrameBatch
from asynctrack.journal.manifest import UNREADABLE, unreadable
from asynctrack.journal.reader import Reader
from asynctrack.queue.layout import START
from asynctrack.reading.history import Cuts, History, LeftOut, Repeats, cuts_of
from asynctrack.reading.row_labels import RowLabels
from asynctrack.records.codec import Decoder, flatten, string_keys
from asynctrack.records.column_types import Kind, kind_of_integers, widest

if TYPE_CHECKING or is_native:
    from asynctrack._native import ODD, WIDE, Scan

# Bits of the tags of a column: see `value_tag` in `columns.h`.
NIL, BOOL, INT, FLOAT, TEXT, OBJECT = (1 << tag for tag in range(6))

# What is read at once: about 5 ms, in which no other thread has the interpreter lock.
_PIECE_BYTES: Final = 4 << 20

# Rows of a block, and the most of rows times names that it should have: some MB. Arbitrary.
_BLOCK_ROWS: Final = 20_000
_BLOCK_CELLS: Final = 500_000
# Names that a pass over blocks keeps, at most, beside those of its last batch: 20 MB. Arbitrary.
_MOST_KNOWN: Final = 100_000

# Of the hash of names, which may be anybody's.
_SEED: Final = secrets.randbits(64)

Batches = Iterable[tuple[Reader, FrameBatch]]


class Plain(Protocol):
    """Makes of a value what a column is to keep of it."""

    def __call__(self, value: Any, /) -> Any:
        """Convert a value."""


def scan(
    run: Path,
    batches: Callable[[], Batches],
    history: History,
    plain: Plain,
    *,
    rows: bool = False,
    labels: RowLabels | None = None,
    fixed: Mapping[int, int] | None = None,
) -> Scan | None:
    """Read the columns of a run.

    Args:
        run: its directory.
        batches: reads the journal from its beginning; each batch comes with its reader, which is told of damage.
        history: as for `RunReader.columns`.
        plain: is called for each value that the core does not know.
        rows: each record is a row: it has one value by a name, and its time is kept.
        labels: gets the writer of each row.
        fixed: for rings that belong to another session than that in which they stand, its number; see `host_sessions`.

    Returns:
        None where the core cannot hold the run, or is not there.
    """
    if not is_native:
        return None
    found = _Pass(run, Scan(_SEED, rows), plain, merges=rows, labels=labels, fixed=fixed)
    try:
        found.read(batches(), finds_cuts=history == "last")
        if len(found.firsts) > 1:
            cuts = cuts_of(found.firsts)
            if labels is not None:
                labels.clear()
            found = _Pass(run, Scan(_SEED, rows), plain, merges=rows, cuts=cuts, labels=labels, fixed=fixed)
            found.read(batches())
    except OverflowError:
        return None
    return found.scan


def blocks(
    run: Path,
    batches: Batches,
    plain: Plain,
    *,
    rows: bool = False,
    steps: bool = True,
    repeats: Repeats | None = None,
    takes: Callable[[FrameBatch], bool] | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[Scan]:
    """Read the columns of a run piece by piece, in memory that does not grow with it. Needs the core.

    Args:
        run: its directory.
        batches: all of the journal, from its beginning.
        plain: as for `scan`.
        rows: as for `scan`.
        steps: without them, steps and times may be wrong, and none is too large. Repeats need them.
        repeats: is left out; see `reading.repeats`.
        takes: tells of each batch if its rows are wanted; None for all.
        left_out: gets the counts of repeats that were left out, before each block.

    Yields:
        A scan with the next rows, which is used again when the next is asked for.

    Raises:
        OverflowError: the core cannot hold a step.
    """
    cuts, fixed = (None, None) if repeats is None else (repeats.cuts, repeats.fixed)
    found = _Pass(run, Scan(_SEED, rows), plain, merges=rows, cuts=cuts, steps=steps, fixed=fixed)
    found.begin()
    found.left_out = found.left_out if left_out is None else left_out
    for reader, batch in batches:
        if takes is None or takes(batch):
            found.feed(reader, batch)
        else:
            found.pass_over(batch)
        if found.scan.rows >= _BLOCK_ROWS or found.scan.rows * found.scan.known >= _BLOCK_CELLS:
            found.count_cut()
            yield found.scan
            found.forget()
    found.count_cut()
    if found.scan.rows:
        yield found.scan


def firsts(run: Path, batches: Batches, fixed: Mapping[int, int]) -> list[dict[str, int]]:
    """Return for each session the least step of each key, in memory that does not grow with the records. Needs the core.

    Args:
        run: its directory.
        batches: as for `blocks`.
        fixed: as for `scan`.

    Raises:
        OverflowError: the core cannot hold a step.
    """
    scan = Scan(_SEED, False)
    scan.begin_session({}, False)
    found = _Pass(run, scan, lambda value: None, merges=False, fixed=fixed)
    found.read(batches, finds_cuts=True)
    return found.firsts


def kind_of_column(scan: Scan, index: int) -> Kind | None:
    """Return the kind that all numbers and truths of a column fit, by the rule of `column_types`; None where it has something else."""
    tags, _, low, high, _ = scan.describe(index)
    if tags & (TEXT | OBJECT):
        return None
    kinds: list[Kind] = ["bool"] if tags & BOOL else []
    kinds += [kind_of_integers(low, high)] if tags & INT else []
    kinds += ["float"] if tags & FLOAT else []
    kind = widest(kinds) if kinds else "float"
    return None if kind == "text" else kind


class _Pass:
    """Reads a journal once.

    Args:
        run: the run's directory.
        scan: gathers the columns.
        plain: as for `scan`.
        merges: a record has one value by a name, the last.
        cuts: for each session the steps from which on keys are left out.
        steps: as for `blocks`.
        labels: as for `scan`.
        fixed: as for `scan`.

    Attributes:
        firsts: for each session the least step of each key, where cuts are looked for.
        left_out: what was cut, as far as `count_cut` has counted.
    """

    def __init__(
        self,
        run: Path,
        scan: Scan,
        plain: Plain,
        *,
        merges: bool,
        cuts: Cuts | None = None,
        steps: bool = True,
        labels: RowLabels | None = None,
        fixed: Mapping[int, int] | None = None,
    ) -> None:
        self.scan = scan
        self.firsts: list[dict[str, int]] = []
        self.left_out = LeftOut()
        self._counted = (0, 0)  # of this scan
        self._run = run
        self._decode = Decoder(run).record
        self._plain = plain
        self._merges = merges
        self._cuts = cuts
        self._steps = steps
        self._labels = labels
        self._fixed = fixed or {}
        self._session = 0
        self._last = 0  # that was begun
        self._begun = False

    def read(self, batches: Batches, *, finds_cuts: bool = False) -> None:
        """Read all batches.

        Raises:
            OverflowError: the core cannot hold a step.
        """
        self.begin()
        for reader, batch in batches:
            self.feed(reader, batch, finds_cuts=finds_cuts)
        if self.firsts:
            self._keep_firsts()

    def begin(self) -> None:
        """Begin with what is cut in the first session."""
        if self._cuts is not None:
            self.scan.begin_session(self._cut(), True)

    def feed(self, reader: Reader, batch: FrameBatch, *, finds_cuts: bool = False) -> None:
        """Read a batch."""
        self._go_to(self._fixed.get(batch.header.ring, self._last), finds_cuts=finds_cuts)
        before = self.scan.rows
        for reason, end, kind, number, lost, begin, behind in _stops(self.scan, batch):
            if reason == WIDE and self._steps:
                raise OverflowError("a step or a time is beyond 63 bits")
            if reason in (ODD, WIDE):
                self._put(reader, batch, Frame(end, kind, number, lost, batch.data[begin:behind]))
            elif kind == START:
                self._start(finds_cuts=finds_cuts)
                before = min(before, self.scan.rows)
        if self._labels is not None:
            self._labels.add(batch, self.scan.rows - before)

    def pass_over(self, batch: FrameBatch) -> None:
        """Leave out the rows of a batch; the sessions that begin in it count."""
        for frame in batch.frames(skip_records=True):
            if frame.kind == START:
                self._start(finds_cuts=False)

    def count_cut(self) -> None:
        """Count what was cut since the last call."""
        rows, values = self.scan.cut
        self.left_out.rows += rows - self._counted[0]
        self.left_out.values += values - self._counted[1]
        self._counted = (rows, values)

    def forget(self) -> None:
        """Forget all rows; the names too, where there are many: a run may make up a name per record."""
        self.scan.clear()
        if self.scan.known > _MOST_KNOWN:
            self.scan = Scan(_SEED, self._merges)
            self._counted = (0, 0)
            self.begin()

    def _start(self, *, finds_cuts: bool) -> None:
        """Begin a session; what comes before the first start belongs to the first."""
        if not self._begun:
            self._begun = True
            return
        self._last += 1
        self._go_to(self._last, finds_cuts=finds_cuts)

    def _go_to(self, session: int, *, finds_cuts: bool) -> None:
        """Take what comes for that of a session."""
        if session == self._session:
            return
        if finds_cuts and self._cuts is None:
            self._keep_firsts()
            self.scan.clear()
        self._session = session
        if self._cuts is not None:
            self.scan.begin_session(self._cut(), True)
        elif finds_cuts:
            self.scan.begin_session({}, False)

    def _keep_firsts(self) -> None:
        """Note the least steps of the session of which something came last."""
        self.firsts += ({} for _ in range(len(self.firsts), self._session + 1))
        first = self.firsts[self._session]
        for name, step in self.scan.firsts().items():
            first[name] = min(step, first.get(name, step))

    def _cut(self) -> dict[str, int]:
        """Return what is cut in this session; nothing in one that came after the cuts were looked for."""
        return self._cuts[self._session] if self._cuts is not None and self._session < len(self._cuts) else {}

    def _put(self, reader: Reader, batch: FrameBatch, frame: Frame) -> None:
        """Decode a record, and put it."""
        try:
            record = self._decode(frame.payload, frame.number, batch.header.ring)
        except UNREADABLE:
            reader.report(unreadable(self._run, batch, frame))
            return
        pairs = list(flatten(string_keys(record.data)))
        cut = self._cut()
        if self._merges or any(name in cut and record.step >= cut[name] for name, _ in pairs):  # as `history.without`
            pairs = list(dict(pairs).items())
        step, time_ns = (record.step, record.time_ns) if self._steps else (0, 0)
        self.scan.put(step, time_ns, [(name, self._plain(value)) for name, value in pairs])


def _stops(scan: Scan, batch: FrameBatch) -> Iterator[tuple[int, int, int, int, int, int, int]]:
    """Feed a batch, and yield where it stops at a frame that has to be looked at."""
    for start, end in batch.whole:
        at = start
        while at < end:
            found = scan.feed(batch.data, at, at + _PIECE_BYTES, end)
            if isinstance(found, int):
                at = found
            else:
                at = found[1]
                yield found
